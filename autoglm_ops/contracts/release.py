"""Records of evaluation, the gate and the registry."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

from autoglm_ops.contracts.feedback import DriftReport
from autoglm_ops.contracts.record import Record


class Interval(Record):
    """A point estimate with its 95 % interval."""

    estimate: float
    low: float
    high: float


class ModelRef(Record):
    """A registered model: where the registry has it, and the digest of its manifest."""

    name: str
    version: int
    digest: str


class Champion(Record):
    """`inputs/champion.json`. `model` is None when nothing was ever promoted.

    data_until: last day of its data. content_key: digest of the data, parameters and code it was made of.
    metric: what it reached on the gate's rows when it was promoted.
    """

    model: ModelRef | None = None
    data_until: str | None = None
    content_key: str | None = None
    metric: float | None = None


class SliceResult(Record):
    """One slice of the gate's rows (a day, a label, a length band): the metric of both on it. On a label it is the recall.

    difference: candidate minus champion with its interval; p_value: two-sided, of no difference. None without a champion.
    """

    name: str
    rows: int
    candidate: float
    champion: float | None
    difference: Interval | None = None
    p_value: float | None = None


class EvaluationReport(Record):
    """`out/evaluate/evaluation.json`. Every model is scored on the same rows, the gate's.

    drift: the training texts now against those the champion was trained on; empty without a champion.
    """

    metric: str
    rows: int
    candidate: Interval
    champion: Interval | None
    baselines: dict[str, Interval]
    against_champion: Interval | None
    against_majority: Interval
    p_value_champion: float | None
    p_value_majority: float
    slices: tuple[SliceResult, ...]
    confusion: dict[str, dict[str, int]]
    model_bytes: int
    champion_bytes: int | None
    against_tfidf: Interval | None = None
    drift: tuple[DriftReport, ...] = ()


class Verdict(StrEnum):
    PROMOTE = "promote"
    REJECT = "reject"
    INSUFFICIENT = "insufficient-evidence"


class GateVerdict(Record):
    """`out/gate/verdict.json`: the decision, the rule it followed, and the numbers it stood on."""

    verdict: Verdict
    policy: str
    reasons: tuple[str, ...]
    evidence: dict[str, Any]


class Promotion(Record):
    """A line of the ledger. `previous` is the sha256 of the line before it: a changed line breaks the chain.

    `model` is None when the alias was removed by hand: from then on there is no champion.
    """

    action: Literal["promote", "rollback", "observed"]
    model: ModelRef | None
    replaced: ModelRef | None
    run: str
    reasons: tuple[str, ...]
    actor: str
    at: float
    previous: str
