"""What the server answered and what came back of it: one SQLite file, $AUTOGLM_HOME/serving/requests.db.

Rules. An id names one text for ever. A prediction may be answered anew until its label is known; then it stays, or a model trained
on the label would be measured on it. A source has one say per prediction: the same again is a repeat, another replaces it. The true
label is what most sources say; a tie is disputed and is no label. E-mail addresses and phone numbers are not kept.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.feedback import FeedbackSnapshot
from autoglm_ops.contracts.record import digest_path, write_text
from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import DayTally, FeedbackCounts, FeedbackItem, LabelledRow, Prediction, SourceTally
from autoglm_ops.errors import UsageError
from autoglm_ops.feedback.database import GroupWriter, reading

FIRST_DAY, LAST_DAY = "0000-01-01", "9999-12-31"

_REMEMBER = """
INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = excluded.version, digest = excluded.digest,
  label = excluded.label, score = excluded.score, at = excluded.at, event_time = excluded.event_time, day = excluded.day
WHERE NOT EXISTS (SELECT 1 FROM feedback WHERE feedback.id = excluded.id AND kind = 'label')
"""
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}")
_PHONE = re.compile(r"(?<!\d)(?:\+\d{1,3}[- ]?\d{2,4}(?:[- ]?\d{3,4}){2}|1[3-9]\d[- ]?\d{4}[- ]?\d{4})(?!\d)")


class Intake:
    """The file at `path`, made with its folder by the first write. max_per_source: feedback accepted per source and day (UTC)."""

    def __init__(self, path: Path, max_per_source: int = 100_000) -> None:
        self.path = path
        self._cap = max_per_source
        self._writer = GroupWriter(path)

    def remember(self, predictions: Sequence[Prediction]) -> Future[None]:
        """Keep predictions: all of them or none. UsageError when an id already names another text."""
        rows = [_row(prediction) for prediction in predictions]
        return self._writer.submit(lambda connection: _insert(connection, rows))

    def receive(
        self, items: Sequence[FeedbackItem], now: float, labels: frozenset[str] | None = None
    ) -> Future[FeedbackCounts]:
        """Keep feedback, at `now` (seconds since the epoch). labels: the only ones allowed; None takes any."""
        return self._writer.submit(lambda connection: _receive(connection, items, now, labels, self._cap))

    def record(self, predictions: Sequence[Prediction]) -> None:
        """`remember`, and wait until it is on disk."""
        self.remember(predictions).result()

    def feedback(self, items: Sequence[FeedbackItem], now: float, labels: frozenset[str] | None = None) -> FeedbackCounts:
        """`receive`, and wait until it is on disk."""
        return self.receive(items, now, labels).result()

    def labelled(self, since_day: str = FIRST_DAY, until_day: str = LAST_DAY) -> list[LabelledRow]:
        """Predictions whose label is known, of events in these ISO days (both included), by day and id."""
        return [row for row in self._judged(since_day, until_day) if row.label]

    def predictions(self, since_day: str = FIRST_DAY, until_day: str = LAST_DAY) -> list[Prediction]:
        """Everything answered about events in these ISO days, labelled or not, by day and id."""
        query = """SELECT id, text, label, score, at, event_time, name, version, digest FROM predictions
                   WHERE day BETWEEN ? AND ? ORDER BY day, id"""
        with reading(self.path) as connection:
            found = connection.execute(query, (since_day, until_day)).fetchall()
        fields = ("id", "text", "label", "score", "at", "event_time")
        return [
            Prediction(**dict(zip(fields, row, strict=False)), model=ModelRef(name=row[6], version=row[7], digest=row[8]))
            for row in found
        ]

    def export(self, folder: Path, until_day: str = LAST_DAY) -> FeedbackSnapshot:
        """Write `folder`/labels.jsonl, {id,text,label,timestamp,source} by day and id, and describe it. No rows, no file."""
        rows = self.labelled(until_day=until_day)
        if not rows:
            return FeedbackSnapshot()
        write_text(folder / "labels.jsonl", "".join(_line(row) for row in rows))
        return FeedbackSnapshot(digest=digest_path(folder), rows=len(rows), until=rows[-1].day)

    def days(self) -> list[DayTally]:
        """What each day brought."""
        with reading(self.path) as connection:
            asked = dict(connection.execute("SELECT day, COUNT(*) FROM predictions GROUP BY day ORDER BY day").fetchall())
        judged = Counter(kind for row in self._judged(FIRST_DAY, LAST_DAY) for kind in _kinds(row))
        return [
            DayTally(
                day=day,
                predictions=count,
                labelled=judged[day, "labelled"],
                correct=judged[day, "correct"],
                disputed=judged[day, "disputed"],
            )
            for day, count in asked.items()
        ]

    def sources(self) -> list[SourceTally]:
        """What each source has said, by name."""
        query = """SELECT source, SUM(kind = 'label'), SUM(kind = 'rating'), MAX(at) FROM feedback GROUP BY source ORDER BY source"""
        with reading(self.path) as connection:
            return [
                SourceTally(source=source, labels=labels, ratings=ratings, last=last)
                for source, labels, ratings, last in connection.execute(query)
            ]

    def close(self) -> None:
        """Wait for what is being written, and let go of the file."""
        self._writer.close()

    def _judged(self, since_day: str, until_day: str) -> Iterator[LabelledRow]:
        """Every prediction somebody labelled; a disputed one has an empty label."""
        query = """SELECT id, text, predictions.label, score, predictions.day, version, source, value
                   FROM predictions JOIN feedback USING (id)
                   WHERE kind = 'label' AND predictions.day BETWEEN ? AND ? ORDER BY predictions.day, id, source"""
        with reading(self.path) as connection:
            found = connection.execute(query, (since_day, until_day)).fetchall()
        for (key, text, predicted, score, day, version), votes in groupby(found, key=itemgetter(0, 1, 2, 3, 4, 5)):
            label, source = settle([(vote[6], vote[7]) for vote in votes]) or ("", "")
            yield LabelledRow(
                id=key, text=text, label=label, predicted=predicted, score=score, day=day, version=version, source=source
            )


def settle(votes: Sequence[tuple[str, str]]) -> tuple[str, str] | None:
    """The label most sources gave, and the first of them by name. `votes` are (source, label); None when two labels lead."""
    ranked = Counter(label for _, label in votes).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    winner = ranked[0][0]
    return winner, min(source for source, label in votes if label == winner)


def redact(text: str) -> str:
    """`text` without e-mail addresses and phone numbers."""
    if "@" in text:
        text = _EMAIL.sub("[email]", text)
    return _PHONE.sub("[phone]", text)


def _kinds(row: LabelledRow) -> Iterator[tuple[str, str]]:
    if not row.label:
        yield row.day, "disputed"
        return
    yield row.day, "labelled"
    if row.label == row.predicted:
        yield row.day, "correct"


def _line(row: LabelledRow) -> str:
    fields = {"id": row.id, "text": row.text, "label": row.label, "timestamp": row.day, "source": f"feedback:{row.source}"}
    return json.dumps(fields, ensure_ascii=False, sort_keys=True) + "\n"


def _row(prediction: Prediction) -> tuple[Any, ...]:
    """In the order of the table's columns."""
    model = (prediction.model.name, prediction.model.version, prediction.model.digest)
    answer = (redact(prediction.text), prediction.label, prediction.score)
    return (prediction.id, *model, *answer, prediction.at, prediction.event_time, prediction.day)


def _insert(connection: sqlite3.Connection, rows: Sequence[tuple[Any, ...]]) -> None:
    for key, text in ((row[0], row[4]) for row in rows):  # before anything is written, so that a refusal leaves nothing behind
        known = connection.execute("SELECT text FROM predictions WHERE id = ?", (key,)).fetchone()
        if known is not None and known[0] != text:
            raise UsageError(f"the id {key!r} already names another text; an id names one text for ever, so choose a new one")
    connection.executemany(_REMEMBER, rows)


def _receive(
    connection: sqlite3.Connection, items: Sequence[FeedbackItem], now: float, labels: frozenset[str] | None, cap: int
) -> FeedbackCounts:
    day = datetime.fromtimestamp(now, UTC).date().isoformat()
    query = "SELECT COUNT(*) FROM feedback WHERE source = ? AND day = ?"
    spent = Counter({name: connection.execute(query, (name, day)).fetchone()[0] for name in {item.source for item in items}})
    counts: Counter[str] = Counter()
    refused: Counter[str] = Counter()
    for item in items:
        if item.label is not None and labels is not None and item.label not in labels:
            refused["unknown-label"] += 1
        elif spent[item.source] >= cap and not _spoke(connection, item):
            refused["over-cap"] += 1
        else:
            words = _keep(connection, item, now, day)
            counts.update(words)
            spent[item.source] += "accepted" in words
    return FeedbackCounts(**counts, refused=dict(refused))


def _spoke(connection: sqlite3.Connection, item: FeedbackItem) -> str | None:
    """What this source has said of this prediction before."""
    query = "SELECT value FROM feedback WHERE id = ? AND source = ? AND kind = ?"
    found = connection.execute(query, (item.id, item.source, item.kind)).fetchone()
    return found and str(found[0])


def _keep(connection: sqlite3.Connection, item: FeedbackItem, now: float, day: str) -> list[str]:
    """Write one item, if it says something new. Returns the counts it adds to."""
    known = connection.execute("SELECT label FROM predictions WHERE id = ?", (item.id,)).fetchone()
    if known is None:
        return ["unknown"]
    value = item.label if item.label is not None else f"{item.rating:+d}"
    before = _spoke(connection, item)
    if before == value:
        return ["repeated"]
    row = (item.id, item.source, item.kind, value, now, day)
    connection.execute("INSERT OR REPLACE INTO feedback VALUES (?, ?, ?, ?, ?, ?)", row)
    judged = [] if item.label is None else ["agreed" if item.label == known[0] else "disagreed"]
    return ["replaced" if before else "accepted", *judged]
