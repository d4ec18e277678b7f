"""What Prometheus is told, read back: errors are no fast answers, and are counted once."""

from __future__ import annotations

from autoglm_ops.serving.metrics import Metrics, read_served


def test_failures_are_counted_once_and_are_no_fast_answers() -> None:
    metrics = Metrics()
    for status, seconds, count in ((200, 4.0, 40), (503, 0.001, 960), (422, 0.001, 7)):
        for _ in range(count):
            metrics.request("/v1/classify", "POST", status, seconds)
    rows = read_served(metrics.render().decode(), "2026-01-05", 3)
    assert [(row.ok, row.requests, row.above) for row in rows] == [(True, 40, 2.5), (False, 960, 0.0)]
    assert abs(sum(row.seconds for row in rows) - 160.0) < 1e-6
