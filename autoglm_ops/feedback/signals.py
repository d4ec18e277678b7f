"""What production says: is the champion's quality gone, have the texts moved. Pure functions from labelled rows to Signals.

How a metric and its interval are computed, and how far texts moved, is the business of `evaluation` and `monitoring`; the
composition root hands both in.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence

from autoglm_ops.contracts.feedback import DriftReport, Signal
from autoglm_ops.contracts.record import Record
from autoglm_ops.contracts.release import Interval
from autoglm_ops.contracts.serving import LabelledRow

MIN_DAYS = 3
RARE = 3.090232
"""Normal quantile of one in a thousand."""

Measure = Callable[[Sequence[str], Sequence[str]], Interval]
"""Truth [n] and answers [n] to the metric with its interval; n >= 1."""


class SignalPolicy(Record):
    """min_rows: fewer say nothing. quality_drop: how far under its promise the champion may be. min_reporters: fewer independent
    sources of labels say nothing of quality."""

    min_rows: int
    quality_drop: float
    min_reporters: int = 1


def derive(
    rows: Iterable[LabelledRow],
    drift: Sequence[DriftReport],
    *,
    version: int,
    promised: float | None,
    measure: Measure,
    policy: SignalPolicy,
) -> tuple[Signal, ...]:
    """The quality and the drift signal of one window, fired or not.

    version, promised: the champion's, and its metric at promotion; what older models answered says nothing of it.
    drift: `monitoring.drift` of the window's texts against the champion's reference.
    """
    window = sorted(rows, key=lambda row: row.day)
    own = [row for row in window if row.version == version]
    return quality_signal(own, promised, measure, policy), drift_signal(drift, _span(window))


def quality_signal(rows: Sequence[LabelledRow], promised: float | None, measure: Measure, policy: SignalPolicy) -> Signal:
    """Fires when even the upper end of the window's interval is more than quality_drop under what was promised."""
    threshold = max(0.0, (promised or 0.0) - policy.quality_drop)
    if promised is None:
        return _silent("quality", threshold, rows, "no-promise: the champion's metric at promotion is not known")
    if len(rows) < max(policy.min_rows, 1):
        return _silent("quality", threshold, rows, f"too-few-rows: {len(rows)} labelled rows, {policy.min_rows} are needed")
    if (sources := len({name for row in rows for name in row.sources or (row.source,)})) < policy.min_reporters:
        return _silent("quality", threshold, rows, f"too-few-reporters: {sources}, {policy.min_reporters} are needed")
    seen = measure([row.label for row in rows], [row.predicted for row in rows])
    fired = seen.high < threshold
    found = f"{seen.estimate:.3f} [{seen.low:.3f}, {seen.high:.3f}] over {len(rows)} rows"
    side = "below" if fired else "not clearly below"
    return Signal(
        name="quality",
        fired=fired,
        value=seen.estimate,
        threshold=threshold,
        low=seen.low,
        high=seen.high,
        rows=len(rows),
        window=_span(rows),
        reason=f"{'quality-fell' if fired else 'quality-holds'}: {found} is {side} {promised:.3f} - {policy.quality_drop:g}",
    )


def variance_signal(rows: Sequence[LabelledRow], min_rows: int) -> Signal:
    """Fires when the share of right answers moved from day to day by more than chance does in one window of a thousand.

    The statistic is the dispersion of the days' counts around their common share (chi-squared over its degrees of freedom), against
    its quantile (Wilson & Hilferty 1931). Days with few rows are left out.
    """
    days: dict[str, list[bool]] = {}
    for row in rows:
        days.setdefault(row.day, []).append(row.label == row.predicted)
    kept = [right for right in days.values() if len(right) >= max(min_rows, 1)]
    if len(kept) < MIN_DAYS:
        return _silent("variance", 0.0, rows, f"too-few-days: {len(kept)} with {min_rows} labelled rows, {MIN_DAYS} are needed")
    freedom = len(kept) - 1
    common = sum(map(sum, kept)) / sum(map(len, kept))
    chance = max(common * (1 - common), 1e-9)
    value = sum(len(right) * (sum(right) / len(right) - common) ** 2 for right in kept) / chance / freedom
    threshold = (1 - 2 / (9 * freedom) + RARE * math.sqrt(2 / (9 * freedom))) ** 3
    word = "unsteady" if value > threshold else "steady"
    reason = f"{word}: accuracy by day varies {value:.2f} times as chance does over {len(kept)} days, at most {threshold:.2f}"
    fields = {
        "name": "variance",
        "fired": value > threshold,
        "value": value,
        "threshold": threshold,
        "low": value,
        "high": value,
    }
    return Signal.model_validate({**fields, "rows": sum(map(len, kept)), "window": _span(rows), "reason": reason})


def drift_signal(reports: Sequence[DriftReport], window: tuple[str, str]) -> Signal:
    """Fires when any feature drifted; says the one that is furthest over, or nearest to, its threshold."""
    if not reports:
        reason = "too-few-rows: nothing was compared with the reference"
        fields = {"name": "drift", "fired": False, "silent": True, "value": 0, "threshold": 0, "low": 0, "high": 0}
        return Signal.model_validate({**fields, "rows": 0, "window": window, "reason": reason})
    worst = max(reports, key=lambda report: (report.drifted, report.value / report.threshold if report.threshold else 0.0))
    word, side = ("drifted", "over") if worst.drifted else ("no-drift", "within")
    return Signal(
        name="drift",
        fired=worst.drifted,
        value=worst.value,
        threshold=worst.threshold,
        low=worst.value,
        high=worst.value,
        rows=worst.rows,
        window=window,
        reason=f"{word}: {worst.kind} of {worst.feature} {worst.value:.3f} is {side} {worst.threshold:g} on {worst.rows} rows",
    )


def _silent(name: str, threshold: float, rows: Sequence[LabelledRow], reason: str) -> Signal:
    fields = {"name": name, "fired": False, "silent": True, "value": 0.0, "threshold": threshold, "low": 0.0, "high": 0.0}
    return Signal.model_validate({**fields, "rows": len(rows), "window": _span(rows), "reason": reason})


def _span(rows: Sequence[LabelledRow]) -> tuple[str, str]:
    days = [row.day for row in rows] or [""]
    return min(days), max(days)
