"""Latency, errors and cost from counted requests, and how often they cry wolf."""

from __future__ import annotations

import math
import random
from bisect import bisect_left

from autoglm_ops.contracts.serving import Served
from autoglm_ops.feedback.operations import OperationsPolicy, derive
from autoglm_ops.feedback.served import BOUNDS, below

POLICY = OperationsPolicy(latency_seconds=1.0, error_rate=0.02, min_requests=30)


def one(bound: float, seconds: float, version: int, ok: bool = True) -> Served:
    counts = {"requests": 1, "texts": 10, "seconds": seconds}
    return Served(day="2026-01-05", version=version, ok=ok, above=below(bound), bound=bound, **counts)


def counted(seconds: list[float], failed: int = 0, version: int = 1) -> list[Served]:
    rows = [one(BOUNDS[bisect_left(BOUNDS, taken)], taken, version) for taken in seconds]
    return rows + [one(BOUNDS[0], 0.001, version, ok=False)] * failed


def fired(rows: list[Served], policy: OperationsPolicy = POLICY) -> set[str]:
    return {signal.name for signal in derive(rows, 1, policy) if signal.fired}


def test_slow_answers_fire_latency_and_fast_ones_nothing() -> None:
    assert fired(counted([0.05] * 60)) == set()
    assert fired(counted([0.05] * 40 + [2.0] * 20)) == {"latency"}
    (slow, *_) = derive(counted([0.05] * 40 + [2.0] * 20), 1, POLICY)
    assert (
        slow.low > 1.0 and slow.reason.startswith("slow: 95% answered within") and slow.window == ("2026-01-05", "2026-01-05")
    )


def test_failures_fire_errors_and_few_requests_say_nothing() -> None:
    assert fired(counted([0.05] * 200, failed=20)) == {"error-rate"}
    assert fired(counted([0.05] * 200, failed=4)) == set()
    assert all(signal.silent for signal in derive(counted([9.0] * 5, failed=5), 1, POLICY))


def test_another_versions_requests_say_nothing_of_this_one() -> None:
    assert derive(counted([9.0] * 60, version=2), 1, POLICY) == ()


def test_cost_is_server_time_at_its_price() -> None:
    dear = POLICY.model_copy(update={"price_per_hour": 36.0, "cost_per_thousand": 0.09})
    cost = derive(counted([0.1] * 60), 1, dear)[2]
    assert cost.fired and math.isclose(cost.value, 0.1 / 10 * 1000 / 3600 * 36.0)
    assert "no-price" in derive(counted([0.1] * 60), 1, POLICY)[2].reason


def test_at_the_threshold_fewer_than_one_window_in_twenty_cries_wolf() -> None:
    """Log-normal latencies whose true 95 % quantile is the threshold, and a true error rate at its own."""
    draw, cries = random.Random(3), {"latency": 0, "error-rate": 0}
    for _ in range(1000):
        seconds = [math.exp(draw.gauss(-1.644854 * 0.5, 0.5)) for _ in range(200)]
        found = fired(counted(seconds, failed=sum(draw.random() < 0.02 for _ in range(200))))
        for name in found:
            cries[name] += 1
    assert cries["latency"] <= 50 and cries["error-rate"] <= 50
