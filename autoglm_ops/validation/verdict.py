"""From counts and expectations to accepted or refused. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from autoglm_ops.contracts.data import Expectation, ValidationReport
from autoglm_ops.contracts.feedback import DriftReport
from autoglm_ops.contracts.flow import SuiteReport
from autoglm_ops.validation.suite import DriftCheck

RULE_OF_THREE = 3.0  # of n rows none has a fault: at 95 % the share that has is below 3/n (Hanley & Lippman-Hand, JAMA 1983)


def judge(rows_out: int, quarantined: Sequence[str], budget: int, expectations: Sequence[Expectation]) -> ValidationReport:
    """The report. `quarantined` holds one reason word per row turned away, by `ingest` or by a row rule."""
    reasons = [*_over_budget(quarantined, budget), *(_failed(item) for item in expectations if not item.success)]
    return ValidationReport(
        verdict="refused" if reasons else "accepted",
        rows_in=rows_out + len(quarantined),
        rows_out=rows_out,
        quarantined=dict(sorted(Counter(quarantined).items())),
        budget=budget,
        expectations=tuple(expectations),
        reasons=tuple(reasons),
    )


def judge_documents(named: Mapping[str, str], rows: int, looked: int, found: Sequence[Expectation]) -> SuiteReport:
    """The report on a dataset of `rows` documents of which `looked` were looked at. No documents are refused whatever the suite says.

    `named` are the report's dataset, suite and asked.
    """
    reasons = [] if rows and looked else ["no-rows: there is no document to look at"]
    reasons += [_failed(item) for item in found if not item.success]
    return SuiteReport(
        verdict="refused" if reasons else "accepted",
        dataset=named["dataset"],
        suite=named["suite"],
        asked=named["asked"],
        rows=rows,
        looked=looked,
        unseen=0.0 if looked >= rows else min(RULE_OF_THREE / max(looked, 1), 1.0),
        expectations=tuple(found),
        reasons=tuple(reasons),
    )


def judge_drift(report: SuiteReport, against: str, found: Sequence[DriftReport], checks: Sequence[DriftCheck]) -> SuiteReport:
    """The report with its drift from dataset `against`. Drift refuses where its check says so, and is noted elsewhere."""
    refusing = {(check.feature, check.kind) for check in checks if check.refuse}
    reasons = [
        f"drifted: {item.kind} of {item.feature} is {item.value:.3f} against {against[:16]}, more than {item.threshold:g}"
        for item in found
        if item.drifted and (item.feature, item.kind) in refusing
    ]
    verdict = "refused" if reasons else report.verdict
    return report.model_copy(
        update={"verdict": verdict, "reasons": (*report.reasons, *reasons), "against": against, "drift": tuple(found)}
    )


def _over_budget(quarantined: Sequence[str], budget: int) -> list[str]:
    if len(quarantined) <= budget:
        return []
    words = ", ".join(f"{word} {count}" for word, count in Counter(quarantined).most_common())
    return [f"over-budget: {len(quarantined)} rows are bad ({words}), the budget is {budget}"]


def _failed(item: Expectation) -> str:
    where = f" of {item.column}" if item.column else ""
    return f"expectation-failed: {item.name}{where}: expected {item.expected}, observed {item.observed}"
