"""The metrics of a run while it runs: a local spool, and its way into MLflow (threats F23).

The trainer appends and never waits for a server. A courier in another process reads on from where it was, and sends; MLflow keeps one
point per (run, key, step), since a point carries its own time and is the same whenever it is sent. So a courier that dies between
sending and noting sends again, and nothing is doubled; a server that is away is asked again, and nothing is lost.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from autoglm_ops.contracts.record import Record, write_text
from autoglm_ops.errors import TryAgain
from autoglm_ops.tracking.frames import OVERHEAD, framed, read_frames


class Point(Record):
    """Values of one step. `at`: milliseconds since 1970, taken once."""

    step: int
    at: int
    values: dict[str, float]


class PointSpool:
    """One writer. Opened again after a kill it drops a torn last record, and answers `step_seen` so that no step is written twice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        points, whole = _points(path, 0)
        if path.exists():
            os.truncate(path, whole)
        self.seen = {(point.step, key) for point in points for key in point.values}
        self._file = path.open("ab")

    def append(self, step: int, values: dict[str, float], at: float) -> None:
        """Add what is new of `values` at `step`. On the disk's way when it returns (a kill keeps it), on the disk at `close`."""
        fresh = {key: value for key, value in values.items() if (step, key) not in self.seen}
        if fresh:
            payload = Point(step=step, at=int(at * 1000), values=fresh).to_json().encode()
            self._file.write(framed(payload))
            self._file.flush()
            self.seen |= {(step, key) for key in fresh}

    def close(self) -> None:
        os.fsync(self._file.fileno())
        self._file.close()


Send = Callable[[Sequence[Point]], None]
"""Delivers points; sending the same again changes nothing. Raises TryAgain when the server is away."""


def deliver(path: Path, send: Send, batch: int = 200) -> int:
    """Send what was spooled since the last time, `batch` points at once, each batch noted beside the spool. Returns how many went.

    Raises TryAgain when the server is away; what was noted until then is delivered.
    """
    note = path.with_suffix(".delivered")
    start = int(note.read_text()) if note.exists() else 0
    payloads, _ = read_frames(path, start)
    for at in range(0, len(payloads), batch):
        part = payloads[at : at + batch]
        send([Point.model_validate_json(payload) for payload in part])
        start += sum(len(payload) + OVERHEAD for payload in part)
        write_text(note, f"{start}\n")
    return len(payloads)


def waiting(path: Path) -> int:
    """Points that were not delivered yet."""
    note = path.with_suffix(".delivered")
    return len(_points(path, int(note.read_text()) if note.exists() else 0)[0])


class Courier:
    """Delivers every `seconds` in a thread of its own, so that a slow server slows nothing else; once more at the end."""

    def __init__(self, path: Path, send: Send, seconds: float = 5.0) -> None:
        self._path, self._send, self._seconds = path, send, seconds
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="courier")
        self.away = ""

    def __enter__(self) -> Courier:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
        self._once()

    def _run(self) -> None:
        while not self._stop.wait(self._seconds):
            self._once()

    def _once(self) -> None:
        try:
            deliver(self._path, self._send)
            self.away = ""
        except TryAgain as error:
            self.away = str(error)


def _points(path: Path, start: int) -> tuple[list[Point], int]:
    payloads, end = read_frames(path, start)
    return [Point.model_validate_json(payload) for payload in payloads], end


def now() -> float:
    """Seconds since 1970."""
    return time.time()
