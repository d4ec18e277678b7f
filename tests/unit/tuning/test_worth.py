"""The chance per step: less cost, a lower loss and more to learn are worth more, and a sum over the future agrees with a simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.tuning.worth import MARGIN, Belief, index, target

LOSS = st.floats(-3, 3)
SPREAD = st.floats(0.01, 2)


def one(mean: float, spread: float, gain: float) -> Belief:
    return Belief(np.array([mean]), np.array([spread]), np.array([gain]))


def worth(goal: float, belief: Belief, first: float = 1, rest: float = 9) -> float:
    return float(index(goal, belief, np.array([first]), np.array([rest]))[0])


@given(LOSS, LOSS, SPREAD, st.floats(0, 0.99), st.floats(0.01, 2))
def test_it_is_finite_and_lower_losses_and_costs_are_worth_more(
    goal: float, mean: float, spread: float, told: float, less: float
) -> None:
    here = worth(goal, one(mean, spread, told * spread))
    assert math.isfinite(here)
    assert worth(goal, one(mean - less, spread, told * spread)) >= here
    assert worth(goal, one(mean, spread, told * spread), first=2) < here
    assert worth(goal, one(mean, spread, told * spread), rest=20) <= here


@given(LOSS, st.floats(-6, 6), SPREAD)
def test_a_look_that_tells_something_saves_steps(goal: float, off: float, spread: float) -> None:
    mean = goal + off * spread
    assert worth(goal, one(mean, spread, 0.9 * spread)) >= worth(goal, one(mean, spread, 0)) - 1e-9


def test_a_blind_training_is_its_chance_over_its_steps() -> None:
    assert math.exp(worth(-1, one(0, 1, 0))) == pytest.approx(0.1586 / 10, rel=0.01)


def test_the_best_stopping_rule_agrees_with_a_simulation() -> None:
    random = np.random.default_rng(0)
    told = random.normal(size=200_000) * 0.8
    won = told + random.normal(size=200_000) * 0.6 <= -1.5
    rates = [(won & (told <= bar)).mean() / (1 + 9 * (told <= bar).mean()) for bar in np.linspace(-3, 3, 61)]
    assert math.exp(worth(-1.5, one(0, 1, 0.8))) == pytest.approx(max(rates), rel=0.03)


def test_the_target_is_what_so_many_are_expected_to_reach_and_below_the_best_seen() -> None:
    sure = Belief(np.arange(100.0), np.full(100, 1e-3), np.zeros(100))
    assert target([sure], np.ones(1), best=50.0, wanted=2.5) == pytest.approx(2, abs=0.1)
    assert target([sure], np.ones(1), best=0.5, wanted=2.5) == pytest.approx(0.5 - MARGIN)
    far = sure._replace(mean=sure.mean + 1000)
    assert target([sure, far], np.array([0.5, 0.5]), best=50.0, wanted=2.5) == pytest.approx(4.5, abs=0.6)
