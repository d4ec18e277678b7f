"""ingest: the dataset's rows up to the run's day, and the labels that production returned. Bad lines go to rejects.jsonl."""

from __future__ import annotations

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from autoglm_ops.contracts.data import WEIGHTS_FILE, SourceManifest
from autoglm_ops.contracts.feedback import FeedbackSnapshot
from autoglm_ops.contracts.inputs import AsOf
from autoglm_ops.contracts.record import write_text
from autoglm_ops.data import source
from autoglm_ops.data.intake import Intake, take
from autoglm_ops.data.rows import Reject, Row, Shape
from autoglm_ops.data.tables import write_rejects, write_rows
from autoglm_ops.errors import BadData
from autoglm_ops.stages.base import Context, Outcome

LABELS_FILE = "labels.jsonl"


def run(context: Context) -> Outcome:
    """Writes rows.parquet and rejects.jsonl. Raises Tampered when the data changed since the snapshot, BadData when there is none."""
    started = time.monotonic()
    until = AsOf.read(context.input("as_of")).day
    own, (returned, weak) = _source(context, until), _feedback(context, until)
    intake = own + returned
    if not intake.rows and not intake.rejects:
        raise BadData(
            f"no rows on or before {until}: all {intake.later} rows are of later days; choose a later day", ("empty-file",)
        )
    write_rows(context.out / "rows.parquet", intake.rows, Row)
    write_rejects(context.out / "rejects.jsonl", intake.rejects)
    if weak:
        write_text(context.out / WEIGHTS_FILE, json.dumps(weak, sort_keys=True) + "\n")
    facts = {
        "rows": len(own.rows),
        "feedback_rows": len(returned.rows),
        "later": intake.later,
        "rejected": dict(sorted(Counter(reject.reason for reject in intake.rejects).items())),
        "truncated_files": sorted({reject.source for reject in intake.rejects if reject.reason == "truncated"}),
    }
    rate = len(intake.rows) / max(time.monotonic() - started, 1e-9)
    return Outcome(facts=facts, measured={"rows_per_second": round(rate)})


def _source(context: Context, until: str) -> Intake:
    data = context.settings.data
    path = source.resolve(data.path, context.origin)
    source.check(SourceManifest.read(context.input("source")), path)
    if data.labelled_until is not None:
        until = min(until, data.labelled_until.isoformat())
    return take(source.read(path, Shape(data.columns.model_dump(), data.epoch), data.days), until)


def _feedback(context: Context, until: str) -> tuple[Intake, dict[str, float]]:
    """Labels by the digest in inputs/feedback.json, fetched from the store and checked by it; and the weights of those nobody gave."""
    snapshot = FeedbackSnapshot.read(context.input("feedback"))
    if not context.settings.data.feedback or snapshot.digest is None:
        return Intake(), {}
    from autoglm_ops.store import open_store

    folder = context.scratch / "feedback"
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        open_store(context.settings.store.uri, context.home).get(snapshot.digest, folder)
        found = take(_labels(folder / LABELS_FILE, context), until)
        return found, _weights(folder / LABELS_FILE, found)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _weights(path: Path, found: Intake) -> dict[str, float]:
    """Row id -> weight, of the rows that were taken and are below 1. Our own file: `feedback.intake` wrote it."""
    lines = (json.loads(line) for line in path.read_bytes().split(b"\n") if b'"weight"' in line)
    said = {str(line["id"]): float(line["weight"]) for line in lines if "weight" in line}
    return {row.id: said[row.id] for row in found.rows if row.id in said}


def _labels(path: Path, context: Context) -> Iterator[Row | Reject]:
    """What production returned has our own column names, whatever the source calls its."""
    ours = {name: name for name in context.settings.data.columns.model_dump()}
    for item in source.read(path, Shape(ours, context.settings.data.epoch), context.settings.data.days):
        yield item if isinstance(item, Row) else item._replace(source=f"feedback/{item.source}")
