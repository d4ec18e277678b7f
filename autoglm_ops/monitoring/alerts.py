"""Which drift reports and signals a person should hear of. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from autoglm_ops.contracts.feedback import Alert, DriftReport, Signal

CRITICAL_SIGNALS = {"quality", "error-rate"}
CRITICAL = 2.0
"""A feature this many times over its threshold is another world, not a trend."""


def from_drift(reports: Iterable[DriftReport]) -> tuple[Alert, ...]:
    """A warning per drifted feature, critical when it is far over."""
    return tuple(_drift_alert(report) for report in reports if report.drifted)


def from_signals(signals: Iterable[Signal]) -> tuple[Alert, ...]:
    """An alert per fired signal other than drift, whose features have alerts of their own. Quality and errors are critical."""
    return tuple(
        Alert(
            name=f"{signal.name}-signal",
            severity="critical" if signal.name in CRITICAL_SIGNALS else "warning",
            message=f"{signal.reason}; days {' to '.join(signal.window)}",
            labels={"signal": signal.name},
        )
        for signal in signals
        if signal.fired and signal.name != "drift"
    )


def _drift_alert(report: DriftReport) -> Alert:
    far = report.value >= CRITICAL * report.threshold
    return Alert(
        name="input-drift",
        severity="critical" if far else "warning",
        message=(
            f"{report.kind} of {report.feature} is {report.value:.3f} on {report.rows} rows, over {report.threshold:g}: "
            "production no longer looks like the training texts"
        ),
        labels={"feature": report.feature, "kind": report.kind},
    )
