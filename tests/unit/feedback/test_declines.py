"""Declines in a row: when they count, which way the heads go, and that no sequence of them leaves the bounds."""

from __future__ import annotations

from datetime import date, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.feedback.compiler import FeedbackPolicy, compile_patches
from autoglm_ops.feedback.declines import KEY, Judged, decline_signal, declines, heads_for, heads_rule
from autoglm_ops.feedback.history import in_force

DAY = date(2026, 1, 5)


def judged(*values: float, metric: str = "macro_f1") -> list[Judged]:
    days = [(DAY + timedelta(days=place)).isoformat() for place in range(len(values))]
    return [
        Judged(day=day, run=f"r{day}", metric=metric, value=value, rows=100) for day, value in zip(days, values, strict=True)
    ]


@pytest.mark.parametrize(
    ("values", "fired", "word"),
    [
        ([0.9, 0.8, 0.7, 0.6], True, "declining: macro_f1 0.900 > 0.800 > 0.700 > 0.600: 3 declines in a row"),
        ([0.5, 0.9, 0.8, 0.7, 0.6], True, "declining"),
        ([0.9, 0.8, 0.8, 0.6], False, "holding: 1 declines in a row, 3 are needed"),
        ([0.9, 0.8, 0.7, 0.71], False, "holding: 0"),
        ([0.9, 0.8, 0.7], False, "too-few-runs: 3 were judged, 4 are needed"),
        ([], False, "too-few-runs: 0"),
    ],
)
def test_three_declines_in_a_row_fire(values: list[float], fired: bool, word: str) -> None:
    signal = decline_signal(judged(*values), 3)
    assert (signal.fired, signal.silent) == (fired, word.startswith("too-few"))
    assert signal.reason.startswith(word)


def test_a_day_counts_by_its_last_run_and_another_metric_does_not_count() -> None:
    again = judged(0.95, 0.8, 0.7, 0.6)[0].model_copy(update={"run": "again", "value": 0.5})
    first, *others = judged(0.95, 0.8, 0.7, 0.6)
    assert not decline_signal([first, again, *others], 3).fired
    assert not decline_signal([*judged(0.9, 0.8, metric="accuracy"), *judged(0.9, 0.8, 0.7, 0.6)[2:]], 3).fired
    shuffled = [others[2], first, others[0], others[1]]
    assert decline_signal(shuffled, 3) == decline_signal([first, *others], 3)


@given(st.lists(st.floats(0, 1), max_size=8))
def test_declines_are_counted_from_the_end(values: list[float]) -> None:
    count = declines(values)
    tail = values[len(values) - count - 1 :] if values else []
    assert all(later < earlier for earlier, later in pairwise(tail))
    assert count == max(len(values) - 1, 0) or values[-count - 1] >= values[-count - 2]


def test_narrow_heads_become_fewer_and_wide_ones_more() -> None:
    assert (heads_rule(128, 4).multiply, heads_rule(128, 4).ends) == (0.5, ("low",))
    assert (heads_rule(512, 8).multiply, heads_rule(512, 8).ends) == (2.0, ("high",))
    assert "a head has only 32 numbers" in heads_rule(128, 4).reason


@pytest.mark.parametrize(
    ("hidden", "heads", "found"),
    [([128], 4, (2, 4, 8)), ([48], 4, (2, 4)), ([64], 1, (1, 2)), ([96, 144], 4, (2, 4)), ([144], 12, (6, 12)), ([50], 4, ())],
)
def test_heads_and_width_go_together(hidden: list[int], heads: int, found: tuple[int, ...]) -> None:
    expected = tuple(count for count in found if all(size % (4 * count) == 0 for size in hidden))
    assert heads_for(hidden, heads) == expected


@given(st.sampled_from([(64, 4), (128, 4), (512, 8), (1024, 16), (48, 4), (96, 1), (4096, 64)]), st.integers(1, 12))
def test_however_often_it_declines_heads_stay_within_twice_and_half(size: tuple[int, int], nights: int) -> None:
    hidden, heads = size
    space = {KEY: heads, "model.hidden_size": hidden}
    policy = FeedbackPolicy(max_step=0.5, cooldown_days=1, expire_days=999, notches={KEY: heads_for([hidden], heads)})
    patches: tuple = ()
    for night in range(nights):
        today = DAY + timedelta(days=10 * night + 9)
        signal = decline_signal(judged(*[1.0 - 0.01 * place for place in range(night + 4)]), 3)
        found = compile_patches([signal], space, in_force(patches, today), policy, today, [heads_rule(hidden, heads)])
        patches += found.patches
    values = [patch.new for patch in patches]
    assert len(values) <= 1
    assert all(value in (heads // 2, 2 * heads) and hidden % (4 * value) == 0 for value in values)
    again = compile_patches([signal], space, PatchSet(patches=patches), policy, today, [heads_rule(hidden, heads)])
    assert not again.patches and again.refused[-1].word in ("bound", "seen", "cooldown")


def test_a_searched_number_of_heads_gains_the_option() -> None:
    key = f"tune.space.{KEY}"
    policy = FeedbackPolicy(max_step=0.5, cooldown_days=1, expire_days=7, notches={KEY: heads_for([128], 4)})
    space = {key: {"choice": [4, 8]}, "model.hidden_size": 128}
    signal = decline_signal(judged(0.9, 0.8, 0.7, 0.6), 3)
    [patch] = compile_patches([signal], space, PatchSet(), policy, DAY + timedelta(days=9), [heads_rule(128, 4)]).patches
    assert (patch.key, patch.new) == (key, {"choice": [2, 4, 8]})
    assert patch.evidence["signals"]["decline"]["value"] == 3
