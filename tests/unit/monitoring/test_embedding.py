"""Embedding shift: false alarms as often as promised, shifts found, and any numbers bounded."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.monitoring import embedding
from autoglm_ops.monitoring.embedding import DIMS, ROWS, bounded, shift


def draw(rows: int, width: int, seed: int, moved: float = 0.0) -> np.ndarray:
    """Skewed and dependent numbers, as pooled states are: no test may count on a normal distribution."""
    random = np.random.default_rng(seed)
    return (np.exp(random.standard_normal((rows, width)) @ random.standard_normal((width, width)) / 4) + moved).astype(
        np.float32
    )


def test_false_alarms_come_as_often_as_promised(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 windows that did not shift, at 0.1: 20 alarms are expected, and more than 33 would be chance in one of 500 cases."""
    monkeypatch.setattr(embedding, "DEALS", 199)
    everything = draw(1000, 8, 1)
    random = np.random.default_rng(2)
    alarms = 0
    for number in range(200):
        rows = everything[random.permutation(len(everything))[:80]]
        alarms += shift(rows[:40], rows[40:], 0.0, 0.1, 40, seed=number).drifted
    assert 8 <= alarms <= 33


def test_a_shift_is_found_and_a_small_one_is_none_of_ours() -> None:
    known = draw(200, 8, 1)
    small = shift(known, draw(200, 8, 1)[::-1] + np.float32(0.5), 0.0, 0.001, 200)
    assert small.drifted and small.kind == "mmd" and small.feature == "embedding" and small.rows == 200
    assert not shift(known, draw(200, 8, 1)[::-1] + np.float32(0.5), small.value + 0.01, 0.001, 200).drifted
    far = shift(known, known + np.float32(100), 0.0, 0.001, 200)
    assert 1.0 < far.value < 1.42
    assert abs(shift(known, known, 0.0, 0.001, 200).value) < 0.2


def test_what_is_kept_is_bounded_and_a_projection_keeps_distances() -> None:
    wide = draw(1000, 512, 3)
    kept = bounded(wide)
    assert kept.shape == (ROWS, DIMS) and kept.dtype == np.float32
    assert np.array_equal(kept, bounded(wide))
    before, after = (
        np.linalg.norm(side[0] - side[100]) for side in (wide[np.linspace(0, 999, ROWS).round().astype(int)], kept)
    )
    assert 0.6 < after / before < 1.4
    assert bounded(draw(3, 4, 1)).shape == (3, 4)
    assert bounded(np.zeros((0, 4), np.float32)).shape == (0, 4)


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=12),
    st.lists(st.lists(st.floats(width=32), min_size=3, max_size=3), min_size=1, max_size=12),
)
def test_any_numbers_give_a_finite_report(one: list[list[float]], other: list[list[float]]) -> None:
    found = shift(bounded(np.array(one, np.float32)), bounded(np.array(other, np.float32)), 0.0, 0.05, len(other))
    assert np.isfinite(found.value) and np.isfinite(found.threshold)
