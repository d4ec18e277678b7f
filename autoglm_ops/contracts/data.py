"""Records of the data stages: where rows come from, what was checked, what the splits are."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from autoglm_ops.contracts.record import Record

Split = Literal["train", "validation", "gate"]
SPLITS: tuple[Split, ...] = ("train", "validation", "gate")
WEIGHTS_FILE = "weights.json"
"""Beside the rows of ingest and validate: {row id: weight} of labels that nobody gave. Not written when there are none."""


class SourceFile(Record):
    """One file of the dataset as it was at the snapshot. `name` is relative to the dataset's root."""

    name: str
    sha256: str
    size: int = Field(ge=0)


class SourceManifest(Record):
    """`inputs/source.json`: the dataset's bytes at the snapshot. No path of the machine."""

    kind: str
    files: tuple[SourceFile, ...]


class Expectation(Record):
    """One checked rule: its name, what it was asked, what it saw."""

    name: str
    column: str | None
    success: bool
    expected: str
    observed: str


class ValidationReport(Record):
    """Rows in = rows out + quarantined, always."""

    verdict: Literal["accepted", "refused"]
    rows_in: int
    rows_out: int
    quarantined: dict[str, int]
    budget: int
    expectations: tuple[Expectation, ...]
    reasons: tuple[str, ...] = ()


class HalfLife(Record):
    """How fast the past went stale, in days; 0: all days alike. scores: macro-F1 on the `judged` days by the half-life's days, as text."""

    days: float
    scores: dict[str, float]
    judged: tuple[str, ...]
    reason: str


class DatasetVersion(Record):
    """What `prepare` made. `digest` is over the three split files, and the copies' when there are any: the dataset's version."""

    digest: str
    rows: dict[str, int]
    labels: tuple[str, ...]
    dropped: dict[str, int]
    first_day: str
    last_day: str
    gate_days: tuple[str, ...]
    label_share: dict[str, dict[str, float]]
