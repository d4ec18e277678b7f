"""How fast and how surely requests were answered, by event day and version: counted in memory, added to requests.db in groups."""

from __future__ import annotations

import sqlite3
import threading
from bisect import bisect_left
from collections.abc import Sequence

from autoglm_ops.contracts.serving import Served

BOUNDS = tuple(round(0.001 * 1.25**power, 6) for power in range(54))
"""Upper ends of the duration buckets in seconds, a quarter apart: 1 ms to two minutes. The last takes what is longer."""

_ADD = """
INSERT INTO served VALUES (?, ?, ?, ?, ?, ?, ?) ON CONFLICT (day, version, ok, bound) DO UPDATE SET
  requests = requests + excluded.requests, texts = texts + excluded.texts, seconds = seconds + excluded.seconds
"""

Key = tuple[str, int, bool, float]


def below(bound: float) -> float:
    """Where the bucket that ends at `bound` begins."""
    place = bisect_left(BOUNDS, bound)
    return BOUNDS[place - 1] if place else 0.0


class Counter:
    """Requests since the last `drain`, safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._found: dict[Key, tuple[int, int, float]] = {}

    def add(self, day: str, version: int, texts: int, seconds: float, ok: bool) -> None:
        key = (day, version, ok, BOUNDS[min(bisect_left(BOUNDS, seconds), len(BOUNDS) - 1)])
        with self._lock:
            requests, sum_texts, sum_seconds = self._found.get(key, (0, 0, 0.0))
            self._found[key] = (requests + 1, sum_texts + texts, sum_seconds + seconds)

    @property
    def empty(self) -> bool:
        return not self._found

    def drain(self, connection: sqlite3.Connection) -> None:
        """Add what was counted to the table; it is counted anew from here on."""
        with self._lock:
            rows = [(*key, *counts) for key, counts in self._found.items()]
            self._found = {}
        if rows:
            connection.executemany(_ADD, rows)


def read(connection: sqlite3.Connection, since_day: str, until_day: str) -> Sequence[Served]:
    """What was served on these days, by day, version and bound."""
    query = """SELECT day, version, ok, bound, requests, texts, seconds FROM served WHERE day BETWEEN ? AND ?
               ORDER BY day, version, ok, bound"""
    rows = connection.execute(query, (since_day, until_day)).fetchall()
    return [
        Served(
            day=day,
            version=version,
            ok=bool(ok),
            above=below(bound),
            bound=bound,
            requests=requests,
            texts=texts,
            seconds=seconds,
        )
        for day, version, ok, bound, requests, texts, seconds in rows
    ]
