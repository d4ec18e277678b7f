"""Records of `autoglm launch`."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from autoglm_ops.contracts.record import Record
from autoglm_ops.contracts.training import ParallelPlan


class RowSet(Record):
    """`_rows.json` of a folder of packed rows. `data` names what the documents were: a dataset's digest, or the location's listing.

    `rows`, `documents` and `tokens` are per split, train and validation; `dropped` counts what was not taken, by reason.
    """

    digest: str
    data: str
    tokenizer: str
    format: str
    length: int
    vocabulary: int
    pad_id: int
    rows: dict[str, int]
    documents: dict[str, int]
    tokens: dict[str, int]
    dropped: dict[str, int] = {}


class Setting(Record):
    """One setting as a run takes it. `given`: the config says so itself."""

    key: str
    value: Any
    reason: str
    given: bool = False


class Estimate(Record):
    """Before the run: `seconds` of all steps and `money` at the stated price, 0 without one. `basis` says what it was made of."""

    steps: int
    seconds: float = Field(ge=0)
    money: float = Field(ge=0)
    basis: str


class LaunchPlan(Record):
    """`plan.json`: all that was decided before anything is spent on training."""

    key: str
    config: dict[str, Any]
    settings: tuple[Setting, ...]
    rows: RowSet
    plan: ParallelPlan
    estimate: Estimate
    inputs: dict[str, str]


class LaunchRecord(Record):
    """`launch.json`: inputs and outputs by sha256, and what came out. Deterministic on equal ranks; times are in `measured.json`."""

    key: str
    settings: tuple[Setting, ...]
    plan: ParallelPlan
    inputs: dict[str, str]
    outputs: dict[str, str]
    trained: dict[str, Any]
