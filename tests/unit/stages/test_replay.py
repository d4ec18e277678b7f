"""The demo's arithmetic, and that its traffic is the bundled days, each text once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.settings import load
from autoglm_ops.stages import replay
from autoglm_ops.stages.replay import DayResult, PromotionCheck

ROOT = Path(__file__).parents[3]


def test_the_traffic_is_fourteen_days_of_distinct_texts() -> None:
    days = list(replay.traffic(load(ROOT / "params.yaml", environ={})))
    texts = [text for day in days for text in day.texts]
    assert len(days) == 14 and len(texts) == len(set(texts)) > 17_000
    assert all(1_000 < len(day.texts) < 1_500 and set(day.labels) == {"neg", "pos"} for day in days)


@pytest.mark.parametrize(
    ("p_values", "rejected"),
    [([0.01, 0.04, 0.03], [True, False, False]), ([0.01, 0.02, 0.03], [True, True, True]), ([], []), ([0.9], [False])],
)
def test_holm_steps_down(p_values: list[float], rejected: list[bool]) -> None:
    assert replay.holm(p_values) == rejected


@given(st.lists(st.floats(0, 1), max_size=8))
def test_holm_never_rejects_what_a_plain_test_keeps_and_all_that_bonferroni_rejects(p_values: list[float]) -> None:
    found = replay.holm(p_values)
    assert all(p <= 0.05 for p, bad in zip(p_values, found, strict=True) if bad)
    assert all(bad for p, bad in zip(p_values, found, strict=True) if p <= 0.05 / len(p_values))


def test_a_worse_model_is_seen_and_an_equal_one_is_not() -> None:
    random = np.random.default_rng(0)
    truth = [str(label) for label in random.integers(0, 2, 800)]
    flip = {"0": "1", "1": "0"}
    good = [label if chance < 0.9 else flip[label] for label, chance in zip(truth, random.random(800), strict=True)]
    bad = [label if chance < 0.8 else flip[label] for label, chance in zip(truth, random.random(800), strict=True)]
    gain, low, high, p_worse = replay.against(truth, bad, good, seed=7)
    assert low < gain < high < 0 and p_worse < 0.01
    assert replay.against(truth, good, good, seed=7)[3] > 0.3
    assert replay.against(truth, good, bad, seed=7)[3] > 0.9


def test_the_verdict_is_over_the_late_days_and_counts_promotions() -> None:
    days = [
        DayResult(day=day, rows=10, frozen=0.4, nightly=0.8, tfidf=0.8, loop=0.78, version=1, promoted=day if day > 5 else None)
        for day in range(3, 8)
    ]
    said = replay.verdict(days, [PromotionCheck(2, 6, -0.2, -0.3, -0.1, 0.001), PromotionCheck(3, 7, 0.1, 0.0, 0.2, 0.99)])
    assert said["days"] == [5, 7] and said["promotions"] == 2 and said["worse_next_day"] == [2]
    assert said["loop_above_frozen"] == pytest.approx(0.38) and said["loop_below_nightly"] == pytest.approx(0.02)


def test_the_verdict_says_what_its_tests_could_have_found() -> None:
    """Normal theory: half of a 95 % interval is 1.96 spreads, and power 0.8 at one-sided 0.05 needs 1.645 + 0.842 of them."""
    check = PromotionCheck(version=2, day=6, gain=0.0, low=-0.0196, high=0.0196, p_worse=0.5)
    assert replay.detectable(check, 1) == pytest.approx(0.0249, abs=1e-4)
    assert replay.detectable(check, 6) > replay.detectable(check, 1)


def test_a_night_names_the_settings_it_changed() -> None:
    day = DayResult(day=4, rows=1, frozen=0, nightly=0, tfidf=0, loop=0, version=1, patches=["tune.space.train.epochs -> 5"])
    assert day.changed == ["epochs"]


def test_two_misses_in_five_windows_ask_for_the_same_job_again(tmp_path: Path) -> None:
    rule = replay.TwoOfFive(tmp_path / "a", 0.9)
    told = [rule.judge(high, 0.05) for high in (0.9, 0.8, 0.86, 0.9, 0.9, 0.9, 0.84, 0.84)]
    assert told == [False] * 7 + [True]
    rule.renew(tmp_path / "b", 0.8)
    assert not rule.judge(0.1, 0.05) and rule.judge(0.1, 0.05)


def test_the_verdict_compares_with_two_of_five_where_it_was_played() -> None:
    day = DayResult(day=6, rows=1, frozen=0, nightly=0.8, tfidf=0.8, loop=0.8, version=1, again=0.7)
    assert replay.verdict([day], [])["loop_above_two_of_five"] == pytest.approx(0.1)
    day.again = None
    assert "loop_above_two_of_five" not in replay.verdict([day], [])
