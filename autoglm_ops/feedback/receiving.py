"""What is taken into requests.db of the feedback that arrives, what is refused and why, and what is forgotten. SQL, in a transaction
of the caller's.

Words: unknown-label, future, late (the answer is older than the limit), outdated (a replay of what was replaced since), over-cap.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from autoglm_ops.contracts.serving import FeedbackCounts, FeedbackItem

DAY = 86_400.0
_OLD = "FROM predictions WHERE day < ? AND at < ? AND id NOT IN (SELECT id FROM feedback)"


class Limits(NamedTuple):
    """per_day: items of one source. age: seconds after an answer that feedback on it is taken."""

    per_day: int
    age: float


def receive(
    connection: sqlite3.Connection, items: Sequence[FeedbackItem], now: float, labels: frozenset[str] | None, limits: Limits
) -> FeedbackCounts:
    """Take `items` at `now`. Each ends in exactly one count; a refused one has a word."""
    day = datetime.fromtimestamp(now, UTC).date().isoformat()
    query = "SELECT COUNT(*) FROM feedback WHERE source = ? AND day = ?"
    spent = Counter({name: connection.execute(query, (name, day)).fetchone()[0] for name in {item.source for item in items}})
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for item in items:
        word = _refusal(item, now, labels) or _untimely(connection, item, now, limits.age)
        if word is None and spent[item.source] >= limits.per_day and _spoke(connection, item) is None:
            word = "over-cap"
        if word is not None:
            refused[word] += 1
            continue
        words = _keep(connection, item, now, day)
        counts.update(words)
        spent[item.source] += "accepted" in words
    return FeedbackCounts(**counts, refused=dict(refused))


def _refusal(item: FeedbackItem, now: float, labels: frozenset[str] | None) -> str | None:
    """Why an item is not taken, whatever it speaks of."""
    if item.label is not None and labels is not None and item.label not in labels:
        return "unknown-label"
    return "future" if item.at is not None and item.at > now + DAY else None


def _untimely(connection: sqlite3.Connection, item: FeedbackItem, now: float, age: float) -> str | None:
    """Why the moment is wrong: the answer is too old, or this source has said something later of it (a replay)."""
    answered = connection.execute("SELECT at FROM predictions WHERE id = ?", (item.id,)).fetchone()
    if answered is not None and now - answered[0] > age:
        return "late"
    before = _spoke(connection, item)
    outdated = before is not None and before[0] != item.value and (now if item.at is None else item.at) < before[1]
    return "outdated" if outdated else None


def _spoke(connection: sqlite3.Connection, item: FeedbackItem) -> tuple[str, float] | None:
    """What this source has said of this prediction before, and when."""
    query = "SELECT value, at FROM feedback WHERE id = ? AND source = ? AND kind = ?"
    found = connection.execute(query, (item.id, item.source, item.kind)).fetchone()
    return found and (str(found[0]), float(found[1]))


def _keep(connection: sqlite3.Connection, item: FeedbackItem, now: float, day: str) -> list[str]:
    """Write one item, if it says something new. Returns the counts it adds to."""
    known = connection.execute("SELECT label FROM predictions WHERE id = ?", (item.id,)).fetchone()
    if known is None:
        return ["unknown"]
    before = _spoke(connection, item)
    if before is not None and before[0] == item.value:
        return ["repeated"]
    row = (item.id, item.source, item.kind, item.value, now if item.at is None else min(item.at, now), day)
    connection.execute("INSERT OR REPLACE INTO feedback VALUES (?, ?, ?, ?, ?, ?)", row)
    judged = [] if item.label is None else ["agreed" if item.label == known[0] else "disagreed"]
    return ["replaced" if before else "accepted", *judged]


def prune(connection: sqlite3.Connection, before_day: str, dry: bool) -> int:
    """Delete answers given before `before_day` (UTC) to events before it that have no feedback; returns how many these are. An old event
    that was asked about today may still get its label."""
    old = (before_day, datetime.fromisoformat(before_day).replace(tzinfo=UTC).timestamp())
    count = int(connection.execute(f"SELECT COUNT(*) {_OLD}", old).fetchone()[0])
    if not dry:
        connection.execute(f"DELETE {_OLD}", old)
        connection.execute("DELETE FROM served WHERE day < ?", (before_day,))
        connection.execute("DELETE FROM units WHERE id NOT IN (SELECT id FROM predictions)")
    return count
