"""What the server answered and what came back of it: one SQLite file, $AUTOGLM_HOME/serving/requests.db.

Rules. An id names one text for ever. A prediction may be answered anew until somebody has said something of it; then it stays: a model
trained on a label would be measured on it, and what a user did with one answer would be read as said of another. A source has one say per prediction: the same again is a repeat, another replaces it unless it
was said earlier. The true label is what most sources say; a tie is disputed and is no label. Where nobody gave a label, what users did
implies one, with a weight. Feedback from the future, or on an answer older than `keep_days`, is refused. E-mail addresses and phone
numbers are not kept.
"""

from __future__ import annotations

import json
import re
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import Future
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.feedback import FeedbackSnapshot
from autoglm_ops.contracts.record import digest_path, write_text
from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import (
    ArmRow,
    DayTally,
    FeedbackCounts,
    FeedbackItem,
    LabelledRow,
    Prediction,
    ReporterTally,
    Served,
    SourceTally,
    Unsure,
)
from autoglm_ops.errors import UsageError
from autoglm_ops.feedback import annotation, receiving, served
from autoglm_ops.feedback.database import GroupWriter, reading
from autoglm_ops.feedback.implied import implied
from autoglm_ops.feedback.reporters import Source, distrusted

FIRST_DAY, LAST_DAY = "0000-01-01", "9999-12-31"
FLUSH_SECONDS = 2.0
"""How long what was observed may wait for the disk when nothing else is written."""

_REMEMBER = """
INSERT INTO predictions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET name = excluded.name, version = excluded.version, digest = excluded.digest,
  label = excluded.label, score = excluded.score, at = excluded.at, event_time = excluded.event_time, day = excluded.day
WHERE NOT EXISTS (SELECT 1 FROM feedback WHERE feedback.id = excluded.id)
"""
_UNIT = """
INSERT INTO units VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET unit = excluded.unit
WHERE NOT EXISTS (SELECT 1 FROM feedback WHERE feedback.id = excluded.id)
"""
_EMAIL = re.compile(r"[A-Za-z0-9._%+-]{1,64}@[A-Za-z0-9-]{1,63}(?:\.[A-Za-z0-9-]{1,63}){1,4}")
_PHONE = re.compile(r"(?<!\d)(?:\+\d{1,3}[- ]?\d{2,4}(?:[- ]?\d{3,4}){2}|1[3-9]\d[- ]?\d{4}[- ]?\d{4})(?!\d)")


class Intake:
    """The file at `path`, made with its folder by the first write. max_per_source: feedback accepted per source and day (UTC).
    keep_days: how long after an answer feedback on it is taken."""

    def __init__(self, path: Path, max_per_source: int = 100_000, keep_days: int = 90) -> None:
        self.path = path
        self._limits = receiving.Limits(max_per_source, keep_days * receiving.DAY)
        self._writer = GroupWriter(path)
        self._served = served.Counter()
        self._flushed = 0.0

    def remember(self, predictions: Sequence[Prediction]) -> Future[None]:
        """Keep predictions: all of them or none. UsageError when an id already names another text."""
        rows = [_row(prediction) for prediction in predictions]
        units = [(prediction.id, prediction.unit) for prediction in predictions if prediction.unit]

        def write(connection: sqlite3.Connection) -> None:
            _insert(connection, rows)
            connection.executemany(_UNIT, units)
            self._served.drain(connection)

        return self._writer.submit(write)

    def receive(
        self, items: Sequence[FeedbackItem], now: float, labels: frozenset[str] | None = None
    ) -> Future[FeedbackCounts]:
        """Keep feedback, at `now` (seconds since the epoch). labels: the only ones allowed; None takes any."""
        return self._writer.submit(lambda connection: receiving.receive(connection, items, now, labels, self._limits))

    def observe(self, day: str, version: int, texts: int, seconds: float, *, ok: bool) -> None:
        """Count a request of `day`. It is on disk with the next answer that is kept, or within FLUSH_SECONDS."""
        self._served.add(day, version, texts, seconds, ok)
        if (
            not ok and time.monotonic() - self._flushed > FLUSH_SECONDS
        ):  # an answer brings the counts along; a failure keeps none
            self._flushed = time.monotonic()
            self._writer.submit(self._served.drain)

    def record(self, predictions: Sequence[Prediction]) -> None:
        """`remember`, and wait until it is on disk."""
        self.remember(predictions).result()

    def feedback(self, items: Sequence[FeedbackItem], now: float, labels: frozenset[str] | None = None) -> FeedbackCounts:
        """`receive`, and wait until it is on disk."""
        return self.receive(items, now, labels).result()

    def labelled(
        self, since_day: str = FIRST_DAY, until_day: str = LAST_DAY, *, without: Collection[Source] = ()
    ) -> list[LabelledRow]:
        """Predictions whose label somebody gave, of events in these ISO days (both included), by day and id. without: (day, source)
        pairs that are not listened to."""
        return [row for row in self._judged(since_day, until_day, without) if row.label]

    def implied(self, since_day: str = FIRST_DAY, until_day: str = LAST_DAY) -> list[LabelledRow]:
        """Predictions without a label that users' acts imply one for, each with a weight below 1."""
        query = """SELECT id, text, predictions.label, score, predictions.day, version, value
                   FROM predictions JOIN feedback USING (id)
                   WHERE kind = 'behaviour' AND predictions.day BETWEEN ? AND ?
                     AND NOT EXISTS (SELECT 1 FROM feedback AS said WHERE said.id = predictions.id AND said.kind = 'label')
                   ORDER BY predictions.day, id, source"""
        with reading(self.path) as connection:
            labels = [row[0] for row in connection.execute("SELECT DISTINCT label FROM predictions ORDER BY label")]
            found = connection.execute(query, (since_day, until_day)).fetchall()
        rows = []
        for (key, text, predicted, score, day, version), acts in groupby(found, key=itemgetter(0, 1, 2, 3, 4, 5)):
            meant = implied(predicted, [act[6] for act in acts], labels)
            if meant is not None:
                fields = {"id": key, "text": text, "predicted": predicted, "score": score, "day": day, "version": version}
                rows.append(LabelledRow(**fields, label=meant[0], weight=meant[1], source="implied"))
        return rows

    def distrusted(self, since_day: str = FIRST_DAY, until_day: str = LAST_DAY) -> dict[Source, str]:
        """The (day, source) pairs whose labels stand against what the other reporters of the day say, and why."""
        query = """SELECT predictions.day, source, COUNT(*), SUM(value = predictions.label) FROM predictions JOIN feedback USING (id)
                   WHERE kind = 'label' AND predictions.day BETWEEN ? AND ? GROUP BY predictions.day, source"""
        with reading(self.path) as connection:
            found = connection.execute(query, (since_day, until_day)).fetchall()
        return distrusted(ReporterTally(day=row[0], source=row[1], rows=row[2], agreed=row[3]) for row in found)

    def labels(self) -> list[str]:
        """Every label that was ever answered, or given, in order."""
        query = "SELECT label FROM predictions UNION SELECT value FROM feedback WHERE kind = 'label' ORDER BY 1"
        with reading(self.path) as connection:
            return [row[0] for row in connection.execute(query)]

    def served(self, since_day: str = FIRST_DAY, until_day: str = LAST_DAY) -> Sequence[Served]:
        """How requests of events in these days were answered."""
        with reading(self.path) as connection:
            return served.read(connection, since_day, until_day)

    def arms(self, since_day: str = FIRST_DAY, until_day: str = LAST_DAY) -> list[ArmRow]:
        """Every answer whose label is known and believed, by the version that gave it and who asked."""
        rows = self.labelled(since_day, until_day, without=self.distrusted(since_day, until_day))
        with reading(self.path) as connection:
            units = dict(connection.execute("SELECT id, unit FROM units").fetchall())
        return [
            ArmRow(version=row.version, unit=units.get(row.id, row.id), right=row.label == row.predicted, day=row.day)
            for row in rows
        ]

    def liked(self, since_day: str = FIRST_DAY, until_day: str = LAST_DAY) -> dict[int, tuple[int, int]]:
        """version -> (good ratings, all ratings)."""
        query = """SELECT version, SUM(value = '+1'), COUNT(*) FROM predictions JOIN feedback USING (id)
                   WHERE kind = 'rating' AND predictions.day BETWEEN ? AND ? GROUP BY version"""
        with reading(self.path) as connection:
            return {row[0]: (row[1], row[2]) for row in connection.execute(query, (since_day, until_day))}

    def unsure(self, limit: int, since_day: str = FIRST_DAY, until_day: str = LAST_DAY) -> list[Unsure]:
        """The answers a person's label is worth most for (`annotation.queue`); each text once."""
        with reading(self.path) as connection:
            return annotation.queue(connection, limit, since_day, until_day)

    def prune(self, before_day: str, *, dry: bool = False) -> int:
        """Forget answers of events before `before_day` that nobody said anything of, and how they were served. Returns how many.

        What has feedback stays: it is in every dataset from here on, which must not lose rows by growing old.
        """
        return self._writer.submit(lambda connection: receiving.prune(connection, before_day, dry)).result()  # type: ignore[no-any-return]

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
        """Write `folder`/labels.jsonl, {id,text,label,timestamp,source} by day and id, and describe it. No rows, no file.

        Labels of distrusted reporters are left out; implied labels have a weight as well.
        """
        without = self.distrusted(until_day=until_day)
        given = self.labelled(until_day=until_day, without=without)
        rows = sorted([*given, *self.implied(until_day=until_day)], key=lambda row: (row.day, row.id))
        if not rows:
            return FeedbackSnapshot()
        write_text(folder / "labels.jsonl", "".join(_line(row) for row in rows))
        return FeedbackSnapshot(digest=digest_path(folder), rows=len(rows), until=rows[-1].day)

    def days(self) -> list[DayTally]:
        """What each day brought."""
        with reading(self.path) as connection:
            asked = dict(connection.execute("SELECT day, COUNT(*) FROM predictions GROUP BY day ORDER BY day").fetchall())
        judged = Counter(kind for row in self._judged(FIRST_DAY, LAST_DAY, ()) for kind in _kinds(row))
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
        """Write what was observed, wait for what is being written, and let go of the file."""
        if not self._served.empty:
            self._writer.submit(self._served.drain)
        self._writer.close()

    def _judged(self, since_day: str, until_day: str, without: Collection[Source]) -> Iterator[LabelledRow]:
        """Every prediction somebody labelled; a disputed one, or one nobody trusted labelled, has an empty label."""
        query = """SELECT id, text, predictions.label, score, predictions.day, version, source, value
                   FROM predictions JOIN feedback USING (id)
                   WHERE kind = 'label' AND predictions.day BETWEEN ? AND ? ORDER BY predictions.day, id, source"""
        with reading(self.path) as connection:
            found = connection.execute(query, (since_day, until_day)).fetchall()
        for (key, text, predicted, score, day, version), votes in groupby(found, key=itemgetter(0, 1, 2, 3, 4, 5)):
            label, sources = settle([(vote[6], vote[7]) for vote in votes if (day, vote[6]) not in without]) or ("", ())
            yield LabelledRow(
                id=key,
                text=text,
                label=label,
                predicted=predicted,
                score=score,
                day=day,
                version=version,
                source=next(iter(sources), ""),
                sources=sources,
            )


def settle(votes: Sequence[tuple[str, str]]) -> tuple[str, tuple[str, ...]] | None:
    """The label most sources gave, and these sources by name. `votes` are (source, label); None when two labels lead."""
    ranked = Counter(label for _, label in votes).most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return None
    winner = ranked[0][0]
    return winner, tuple(sorted(source for source, label in votes if label == winner))


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
    fields: dict[str, str | float] = {"id": row.id, "text": row.text, "label": row.label, "timestamp": row.day}
    fields["source"] = f"feedback:{row.source}"
    if row.weight != 1:
        fields["weight"] = row.weight
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
