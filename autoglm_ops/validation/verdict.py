"""From counts and expectations to accepted or refused. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autoglm_ops.contracts.data import Expectation, ValidationReport


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


def _over_budget(quarantined: Sequence[str], budget: int) -> list[str]:
    if len(quarantined) <= budget:
        return []
    words = ", ".join(f"{word} {count}" for word, count in Counter(quarantined).most_common())
    return [f"over-budget: {len(quarantined)} rows are bad ({words}), the budget is {budget}"]


def _failed(item: Expectation) -> str:
    where = f" of {item.column}" if item.column else ""
    return f"expectation-failed: {item.name}{where}: expected {item.expected}, observed {item.observed}"
