"""From what every model answered on the gate's rows to the EvaluationReport. Pure; the models have been asked already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from autoglm_ops.contracts.feedback import DriftReport
from autoglm_ops.contracts.release import EvaluationReport, SliceResult
from autoglm_ops.evaluation.metrics import METRICS, Codes, confusion, encode, label_names, score
from autoglm_ops.evaluation.paired import compare, interval
from autoglm_ops.evaluation.slices import cuts, slice_result


@dataclass(frozen=True)
class Answers:
    """The gate's rows and every model's answers to them, all [n]. A champion may know other labels than the data."""

    texts: Sequence[str]
    days: Sequence[str]
    truth: Sequence[str]
    candidate: Sequence[str]
    champion: Sequence[str] | None
    majority: Sequence[str]
    tfidf: Sequence[str]

    def columns(self) -> dict[str, Sequence[str]]:
        """The truth and each model's answers by name; no champion, no key."""
        columns = {"truth": self.truth, "candidate": self.candidate, "majority": self.majority, "tfidf": self.tfidf}
        return columns if self.champion is None else columns | {"champion": self.champion}

    def coded(self) -> tuple[tuple[str, ...], dict[str, Codes]]:
        """Every label that occurs, sorted, and the columns as codes in it."""
        columns = self.columns()
        names = label_names(*columns.values())
        return names, {name: encode(labels, names) for name, labels in columns.items()}


@dataclass(frozen=True)
class Method:
    """How to measure: the metric's name, how many resamples, the seed of all of them."""

    metric: str
    resamples: int
    seed: int


@dataclass(frozen=True)
class Sizes:
    """Bytes of the model folders."""

    candidate: int
    champion: int | None = None


def assess(answers: Answers, method: Method, sizes: Sizes, drift: tuple[DriftReport, ...] = ()) -> EvaluationReport:
    """Score every model on the same rows, and the candidate against the champion and the majority class. `drift` is passed on.

    Raises UsageError without rows or for an unknown metric.
    """
    names, codes = answers.coded()
    options = {"labels": len(names), "resamples": method.resamples, "seed": method.seed}
    truth, candidate, champion = codes["truth"], codes["candidate"], codes.get("champion")
    own = {model: interval(method.metric, truth, labels, **options) for model, labels in codes.items() if model != "truth"}
    rival = None if champion is None else compare(method.metric, truth, candidate, champion, **options)
    beaten, simple = (compare(method.metric, truth, candidate, codes[name], **options) for name in ("majority", "tfidf"))
    return EvaluationReport(
        metric=method.metric,
        rows=len(truth),
        candidate=own["candidate"],
        champion=own.get("champion"),
        baselines={name: own[name] for name in ("majority", "tfidf")},
        against_champion=rival and rival.difference,
        against_majority=beaten.difference,
        p_value_champion=rival and rival.p_value,
        p_value_majority=beaten.p_value,
        slices=_slices(answers, method.metric, codes, options),
        confusion=confusion(truth, candidate, names),
        model_bytes=sizes.candidate,
        champion_bytes=sizes.champion,
        against_tfidf=simple.difference,
        drift=drift,
    )


def _slices(answers: Answers, metric: str, codes: dict[str, Codes], options: dict[str, int]) -> tuple[SliceResult, ...]:
    parts = cuts(answers.texts, answers.days, answers.truth)
    return tuple(
        slice_result(metric, name, {model: labels[mask] for model, labels in codes.items()}, **options) for name, mask in parts
    )


def flat_metrics(report: EvaluationReport, answers: Answers) -> dict[str, float | int]:
    """The numbers of a report by name, for `dvc metrics diff` and the tracker. No key for what does not exist."""
    names, codes = answers.coded()
    truth = codes.pop("truth")
    numbers: dict[str, float | int] = {"rows": report.rows, "model_bytes": report.model_bytes}
    for model, labels in sorted(codes.items()):
        numbers |= {f"{model}_{name}": score(name, truth, labels, len(names)) for name in METRICS}
    numbers |= {"candidate_low": report.candidate.low, "candidate_high": report.candidate.high}
    if report.against_champion is not None and report.p_value_champion is not None:
        numbers |= {"gain": report.against_champion.estimate, "gain_low": report.against_champion.low}
        numbers |= {"gain_high": report.against_champion.high, "gain_p_value": report.p_value_champion}
    return numbers
