"""What the report says, as plain values for its templates: numbers are written out here, markup is not. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from autoglm_ops.contracts.data import SPLITS, DatasetVersion, ValidationReport
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.release import Champion, EvaluationReport, GateVerdict, Interval, SliceResult, Verdict
from autoglm_ops.contracts.training import ParallelPlan, Quantised, TrainingRecord, TuningReport

Facts = list[tuple[str, str]]

HEADLINES = {
    Verdict.PROMOTE: "▲ Promote: the candidate is better",
    Verdict.REJECT: "▼ Reject: the candidate must not replace the champion",
    Verdict.INSUFFICIENT: "● Insufficient evidence: the champion stays",
}
FIRST = {
    Verdict.PROMOTE: "▲ Promote: the first champion",
    Verdict.REJECT: "▼ Reject: no champion yet, and this is none",
    Verdict.INSUFFICIENT: "● Insufficient evidence: there is no champion yet",
}
ON_DRIFT = "▲ Promote: the texts drifted, and the candidate is not worse"
"""Of a promotion by non-inferiority, whose candidate may even be a little below the champion."""


@dataclass(frozen=True)
class Material:
    """The records a report is made of."""

    validation: ValidationReport
    dataset: DatasetVersion
    plan: ParallelPlan
    tuning: TuningReport
    training: TrainingRecord
    evaluation: EvaluationReport
    verdict: GateVerdict
    champion: Champion
    patches: PatchSet


def page(material: Material) -> dict[str, Any]:
    """Everything the templates name."""
    return {
        **_head(material),
        **_evaluation(material.evaluation, material.champion),
        **_data(material),
        **_tuning(material.tuning),
        **_training(material.training, material.plan),
        "patches": [
            patch.model_dump() | {"old": text(patch.old), "new": text(patch.new)} for patch in material.patches.patches
        ],
    }


def _head(material: Material) -> dict[str, Any]:
    verdict, dataset = material.verdict, material.dataset
    return {
        "verdict": verdict.verdict.value,
        "headline": _headline(verdict, material.champion),
        "reasons": [_reason(reason) for reason in verdict.reasons],
        "policy": verdict.policy,
        "first_day": dataset.first_day,
        "last_day": dataset.last_day,
        "version": dataset.digest[:12],
        "digest": dataset.digest,
    }


def _headline(verdict: GateVerdict, champion: Champion) -> str:
    """By the gate's code, not by its rule: under drift a candidate may be better all the same."""
    if verdict.verdict is Verdict.PROMOTE and any(_reason(reason)["code"] == "not-worse" for reason in verdict.reasons):
        return ON_DRIFT
    return (HEADLINES if champion.model else FIRST)[verdict.verdict]


def _reason(reason: str) -> dict[str, str]:
    code, colon, words = reason.partition(": ")
    return {"code": code, "text": words} if colon and " " not in code else {"code": "", "text": reason}


def _evaluation(report: EvaluationReport, champion: Champion) -> dict[str, Any]:
    names = list(report.confusion)
    return {
        "metric": report.metric,
        "rows": f"{report.rows:,}",
        "rival": report.champion is not None,
        "models": list(_models(report, champion)),
        "slices": [_slice(part) for part in report.slices],
        "labels": names,
        "confusion": [_label(report.confusion, truth) for truth in names],
        "drift": [row.model_dump() | {"value": number(row.value), "threshold": f"{row.threshold:g}"} for row in report.drift],
    }


def _models(report: EvaluationReport, champion: Champion) -> Iterator[dict[str, Any]]:
    yield _model("candidate", report.candidate, None, report.model_bytes) | {"own": True}
    if report.champion is not None:
        name = f"champion {champion.model.name} v{champion.model.version}" if champion.model else "champion"
        yield _model(name, report.champion, report.against_champion, report.champion_bytes)
    titles = {"tfidf": "TF-IDF + logistic regression", "majority": "majority class"}
    for name, own in sorted(report.baselines.items(), key=lambda item: -item[1].estimate):
        paired = report.against_majority if name == "majority" else report.against_tfidf
        yield _model(titles.get(name, name), own, paired, None)


def _model(name: str, own: Interval, difference: Interval | None, size: int | None) -> dict[str, Any]:
    return {
        "name": name,
        "own": False,
        "value": own.estimate,
        "estimate": number(own.estimate),
        "interval": f"{number(own.low)} – {number(own.high)}",
        "size": "" if size is None else megabytes(size),
        **arrow(difference),
    }


def _slice(part: SliceResult) -> dict[str, Any]:
    rival = {"champion": "" if part.champion is None else number(part.champion)}
    name = part.name.replace("=", " ", 1)
    return {"name": name, "rows": f"{part.rows:,}", "candidate": number(part.candidate), **rival, **arrow(part.difference)}


def arrow(difference: Interval | None) -> dict[str, str]:
    """Arrow, tone and text of a difference in the candidate's favour: an interval must be wholly on one side of zero."""
    if difference is None:
        return {"arrow": "", "tone": "level", "difference": ""}
    low, high = difference.low, difference.high
    sign, tone = ("▲", "up") if low > 0 else ("▼", "down") if high < 0 else ("●", "level")
    return {"arrow": sign, "tone": tone, "difference": f"{difference.estimate:+.3f} [{low:+.3f}, {high:+.3f}]"}


def _label(counts: Mapping[str, Mapping[str, int]], truth: str) -> dict[str, Any]:
    """One true label: how its rows were answered, and its precision, recall and F1."""
    row, right = counts[truth], counts[truth][truth]
    actual, said = sum(row.values()), sum(other[truth] for other in counts.values())
    return {
        "name": truth,
        "cells": [{"count": f"{row[name]:,}", "share": f"{row[name] / max(actual, 1):.3f}"} for name in counts],
        "scores": [_ratio(right, said), _ratio(right, actual), _ratio(2 * right, actual + said)],
    }


def _ratio(part: int, whole: int) -> str:
    return number(part / whole) if whole else "–"


def _data(material: Material) -> dict[str, Any]:
    dataset, checked = material.dataset, material.validation
    splits = [split for split in SPLITS if split in dataset.rows]
    shares = dataset.label_share
    rows = [(f"rows for {split}", f"{dataset.rows[split]:,}") for split in splits]
    quarantined = sum(checked.quarantined.values())
    return {
        "data": [
            ("rows read", f"{checked.rows_in:,}"),
            ("quarantined", f"{quarantined:,} of a budget of {checked.budget:,}{_counts(checked.quarantined)}"),
            *rows,
            ("expectations", f"{sum(item.success for item in checked.expectations)} of {len(checked.expectations)} met"),
            ("days", f"{dataset.first_day} to {dataset.last_day}"),
            ("days judged on", ", ".join(dataset.gate_days)),
        ],
        "expectations": [item.model_dump() for item in checked.expectations],
        "dropped": [(reason, f"{count:,}") for reason, count in sorted(dataset.dropped.items())],
        "splits": splits,
        "label_share": [
            {"name": label, "shares": [f"{shares.get(split, {}).get(label, 0):.1%}" for split in splits]}
            for label in dataset.labels
        ],
    }


def _counts(counts: Mapping[str, int]) -> str:
    return f" ({', '.join(f'{name} {count:,}' for name, count in sorted(counts.items()))})" if counts else ""


def _tuning(report: TuningReport) -> dict[str, Any]:
    searched = sorted({key for trial in report.trials for key in trial.params})
    return {
        "objective": report.objective,
        "searched": searched,
        "trials": [
            {
                "number": trial.number,
                "state": trial.state,
                "value": "" if trial.value is None else number(trial.value),
                "params": [text(trial.params.get(key, "")) for key in searched],
                "best": trial.state == "complete" and trial.value == report.best_value,
            }
            for trial in report.trials
        ],
        "tuning_reasons": report.reasons,
        "tuned": set(report.best),
        "chosen": [(key, text(value)) for key, value in sorted(report.best.items())],
    }


def _training(record: TrainingRecord, plan: ParallelPlan) -> dict[str, Any]:
    kept = dict(record.validation).get(record.best_step)
    weights = (
        f"mean of the weights of steps {record.averaged_from} to {record.best_step}"
        if record.averaged_from
        else f"step {record.best_step}"
    )
    return {
        "training": [
            ("architecture", f"{record.architecture}, {record.parameters:,} parameters"),
            ("steps", f"{record.steps:,} ({record.epochs:.3g} epochs)"),
            ("seen", f"{record.samples:,} rows, {record.tokens:,} tokens"),
            ("kept", weights + ("" if kept is None else f", validation {number(kept)}")),
            *([] if record.quantised is None else [("published as", _int8(record.quantised))]),
        ],
        "plan": [
            (
                "layout",
                f"{plan.ranks} rank{'s' * (plan.ranks != 1)} on {plan.device}, ZeRO stage {plan.zero_stage}, {plan.precision}",
            ),
            ("batch", f"{plan.ranks} × {plan.micro_batch} × {plan.accumulation} = {plan.global_batch}"),
            ("memory per rank", _memory(plan)),
        ],
        "plan_reasons": plan.reasons,
        "settings": [(key, text(value)) for key, value in _flat(record.settings)],
        "weights": record.weights_sha256[:12],
    }


def _int8(made: Quantised) -> str:
    share = 1 - made.bytes_after / made.bytes_before
    return (
        f"int8, {made.layers} layers: {megabytes(made.bytes_after)} instead of {megabytes(made.bytes_before)} ({share:.0%} less), "
        f"validation {made.after:.4f} instead of {made.before:.4f}"
    )


def _memory(plan: ParallelPlan) -> str:
    parts = [f"{name} {megabytes(size)}" for name, size in plan.memory_bytes.items() if name != "usable"]
    return f"{', '.join(parts)}: {'fits' if plan.fits else 'does not fit'}"


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted leaves, sorted."""
    for key, value in sorted(tree.items()):
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def number(value: float) -> str:
    """A metric or a distance: three decimals."""
    return f"{value:.3f}"


def megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"


def text(value: Any) -> str:
    """A setting's value for a reader: numbers short, ranges as `low … high`."""
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {text(inner)}" for key, inner in value.items())
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(text, value))}]"
    return "unset" if value is None else str(value)
