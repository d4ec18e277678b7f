"""How often drift is cried on real reviews that did not drift, and that it is cried when they did."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest

from autoglm_ops.monitoring.drift import binned_ks, drift, profile
from autoglm_ops.settings import load
from autoglm_ops.stages import replay

ROOT = Path(__file__).parents[3]
SETTINGS = load(ROOT / "params.yaml", environ={})
WINDOWS = 200


@cache
def days() -> tuple[replay.Traffic, ...]:
    return tuple(replay.traffic(SETTINGS))


def cries(first: int, other: int, rows: int) -> float:
    """Share of windows of `rows` requests of day `other` that drift from a half of day `first`, with labels as the loop has them."""
    draw, limits = random.Random(5), SETTINGS.monitor
    pairs = list(zip(days()[first - 1].texts, days()[first - 1].labels, strict=True))
    draw.shuffle(pairs)
    reference = profile(*zip(*pairs[: len(pairs) // 2], strict=True))
    pool = (
        pairs[len(pairs) // 2 :]
        if other == first
        else list(zip(days()[other - 1].texts, days()[other - 1].labels, strict=True))
    )
    found = 0
    for _ in range(WINDOWS):
        window = profile(*zip(*draw.sample(pool, rows), strict=True))
        reports = (
            *drift(reference, window, limits.psi, limits.kl, limits.min_rows),
            binned_ks(reference, window, limits.ks, 0.001),
        )
        assert len(reports) == 4
        found += any(report.drifted for report in reports)
    return found / WINDOWS


@pytest.mark.parametrize("day", [3, 12])
def test_windows_of_the_same_day_cry_drift_at_most_once_in_twenty(day: int) -> None:
    assert cries(day, day, 200) <= 0.05


def test_another_domain_is_always_drift() -> None:
    assert cries(2, 6, 200) == 1.0
