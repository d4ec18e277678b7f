"""Alerts say what a person must know, once per cause."""

from __future__ import annotations

from typing import Any

import pytest

from autoglm_ops.contracts.feedback import DriftReport, Signal
from autoglm_ops.monitoring.alerts import from_drift, from_signals


@pytest.mark.parametrize(("value", "severities"), [(0.1, []), (0.2, []), (0.3, ["warning"]), (0.4, ["critical"])])
def test_drift_is_graded(value: float, severities: list[str]) -> None:
    report = DriftReport(feature="length", kind="psi", value=value, threshold=0.2, rows=300, drifted=value > 0.2)
    assert [alert.severity for alert in from_drift([report])] == severities


@pytest.mark.parametrize(
    ("name", "fired", "severities"),
    [("quality", True, ["critical"]), ("latency", True, ["warning"]), ("quality", False, []), ("drift", True, [])],
)
def test_fired_signals_alert(name: Any, fired: bool, severities: list[str]) -> None:
    fields = {"value": 0.5, "threshold": 0.7, "low": 0.4, "high": 0.6, "rows": 300, "window": ("2026-01-01", "2026-01-02")}
    alerts = from_signals([Signal.model_validate({"name": name, "fired": fired, "reason": "word: found", **fields})])
    assert [alert.severity for alert in alerts] == severities
    assert all("word: found; days 2026-01-01 to 2026-01-02" in alert.message for alert in alerts)
