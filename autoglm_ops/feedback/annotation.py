"""Which answers a person's label is worth most for, and their way through a file: CSV or JSON Lines, out and back."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path

from autoglm_ops.contracts.serving import FeedbackItem, Unsure
from autoglm_ops.errors import BadData

_QUEUE = """
WITH votes AS (
  SELECT id, value, COUNT(*) AS votes FROM feedback WHERE kind = 'label' GROUP BY id, value),
settled AS (
  SELECT id, SUM(votes = best) AS leaders FROM votes JOIN (SELECT id, MAX(votes) AS best FROM votes GROUP BY id) USING (id) GROUP BY id),
split AS (SELECT text, 1 AS differs FROM predictions GROUP BY text HAVING COUNT(DISTINCT label) > 1)
SELECT id, text, label, score, day,
  CASE WHEN leaders > 1 THEN 'disputed'
       WHEN EXISTS (SELECT 1 FROM feedback WHERE feedback.id = predictions.id AND kind = 'rating' AND value = '-1') THEN 'disliked'
       WHEN differs THEN 'disagreeing'
       ELSE 'uncertain' END AS reason
FROM predictions LEFT JOIN settled USING (id) LEFT JOIN split USING (text)
WHERE day BETWEEN ? AND ? AND (leaders IS NULL OR leaders > 1)
ORDER BY CASE reason WHEN 'disputed' THEN 0 WHEN 'disliked' THEN 1 WHEN 'disagreeing' THEN 2 ELSE 3 END, score, id
"""


def queue(connection: sqlite3.Connection, limit: int, since_day: str, until_day: str) -> list[Unsure]:
    """At most `limit` answers without a settled label, each text once: disputed, then disliked, then those that
    versions answered differently, then the least sure."""
    found: list[Unsure] = []
    seen: set[str] = set()
    for key, text, label, score, day, reason in connection.execute(_QUEUE, (since_day, until_day)):
        if len(found) == limit:
            break
        if text not in seen:
            seen.add(text)
            found.append(Unsure(id=key, text=text, predicted=label, score=score, day=day, reason=reason))
    return found


def written(rows: Sequence[Unsure], form: str) -> str:
    """The queue as a file: `label` is empty and to be filled in."""
    if form == "jsonl":
        return "".join(json.dumps(row.model_dump(), ensure_ascii=False) + "\n" for row in rows)
    sink = io.StringIO()
    writer = csv.DictWriter(sink, list(Unsure.model_fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump() for row in rows)
    return sink.getvalue()


def read_back(path: Path, source: str) -> list[FeedbackItem]:
    """The labels somebody filled in; rows without one are passed over. Raises BadData naming the first line that is none."""
    try:
        content = path.read_text(encoding="utf-8-sig")  # a spreadsheet puts a byte order mark before its CSV
    except (OSError, UnicodeDecodeError) as error:
        raise BadData(f"{path} cannot be read as UTF-8 text: {error}") from error
    lines = _json_lines(content) if path.suffix == ".jsonl" else csv.DictReader(io.StringIO(content, newline=""))
    items = []
    for number, line in enumerate(lines, start=1):
        key, label = (line.get(name) if isinstance(line, dict) else None for name in ("id", "label"))
        if not isinstance(key, str) or not isinstance(label, str | None):
            raise BadData(f"{path}: row {number} has no id and label; write `autoglm annotate --to {path.name}` anew")
        if label and label.strip():
            try:
                items.append(FeedbackItem(id=key, source=source, label=label.strip()))
            except ValueError as error:
                raise BadData(f"{path}: row {number}: {error}") from error
    return items


def _json_lines(content: str) -> Iterable[object]:
    for number, line in enumerate(content.split("\n"), start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except ValueError as error:
                raise BadData(f"line {number} is not JSON: {error}") from error
