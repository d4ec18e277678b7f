"""TuneMaster decides from records alone, hears history that has skill, and leaves out what has none."""

from __future__ import annotations

import math

import numpy as np
import pytest

from autoglm_ops.tuning import curves
from autoglm_ops.tuning.curves import Points
from autoglm_ops.tuning.master import TuneMaster
from autoglm_ops.tuning.moves import Continue, Seen, Start, Stop, View, ending, ladder
from autoglm_ops.tuning.pool import Pool
from autoglm_ops.tuning.space import parse_space
from autoglm_ops.tuning.transfer import Earlier, Told, promise, winner

SPACE = parse_space({"train.learning_rate": {"loguniform": [1e-4, 1e-1]}, "train.weight_decay": {"uniform": [0, 1]}})
RUNGS = (1, 3, 9)


def loss(choices: dict, step: int) -> float:
    off = abs(math.log10(choices["train.learning_rate"]) + 3) / 2 + choices["train.weight_decay"] / 4
    return 1 - (1 - min(off, 0.99)) * math.log1p(step) / math.log1p(9) * 0.9


def play(strategy: TuneMaster, moves: int, budget: int = 100, left: int | None = None) -> View:
    view = View(steps=9, budget=budget, left=left)
    for _ in range(moves):
        move = strategy.next(view)
        if isinstance(move, Stop):
            break
        trials = list(view.trials)
        if isinstance(move, Start):
            trials.append(Seen(number=len(trials), choices=move.choices))
        assert isinstance(move, Start | Continue)
        number = len(trials) - 1 if isinstance(move, Start) else move.trial
        paid = move.to - trials[number].step
        curve = (*trials[number].curve, (move.to, loss(trials[number].choices, move.to)))
        trials[number] = trials[number].model_copy(update={"curve": curve})
        rest = None if view.left is None else view.left - paid
        view = view.model_copy(update={"trials": tuple(trials), "looks": (*view.looks, (number, move.to)), "left": rest})
    return view


def told(seed: int, order: str = "true") -> Earlier:
    pool = Pool.of(SPACE, seed, 64)
    curve = [tuple((step, loss(choices, step)) for step in RUNGS) for choices in pool.choices]
    if order == "shuffled":
        curve = [curve[place] for place in np.random.default_rng(seed).permutation(len(curve))]
    return Earlier(
        name="past", steps=9, trials=tuple(Told(choices=c, curve=k) for c, k in zip(pool.choices, curve, strict=True))
    )


def test_equal_records_give_equal_moves_whoever_is_asked() -> None:
    pool = Pool.of(SPACE, 3, 64)
    one = TuneMaster(pool, RUNGS, seed=1)
    view = play(one, 30)
    assert TuneMaster(Pool.of(SPACE, 3, 64), RUNGS, seed=1).next(view) == one.next(view)


def test_it_finds_the_valley_and_continues_what_it_paused() -> None:
    view = play(TuneMaster(Pool.of(SPACE, 3, 64), RUNGS, seed=1), 40)
    best = min(view.trials, key=lambda trial: trial.loss)
    ranked = sorted(loss(choices, 9) for choices in Pool.of(SPACE, 3, 64).choices)
    assert best.step == 9 and best.loss <= ranked[2]
    assert sum(trial.step for trial in view.trials) < 150  # all 64 whole would be 576


def test_history_starts_near_the_valley() -> None:
    cold = play(TuneMaster(Pool.of(SPACE, 3, 64), RUNGS, seed=1), 9)
    warm = play(TuneMaster(Pool.of(SPACE, 3, 64), RUNGS, seed=1, earlier=[told(11)]), 9)
    assert min(trial.loss for trial in warm.trials) < min(trial.loss for trial in cold.trials)


def test_the_winner_of_a_study_heard_is_looked_at_after_the_present_settings_and_before_all_else() -> None:
    past, present = told(11), {"train.learning_rate": 2e-2, "train.weight_decay": 0.5}
    best = min(past.trials, key=lambda trial: trial.curve[-1][1]).choices
    view = play(TuneMaster(Pool.of(SPACE, 3, 64), RUNGS, seed=1, first=[present], earlier=[past]), 12)
    assert [trial.choices for trial in view.trials[:2]] == [present, best]
    again = play(TuneMaster(Pool.of(SPACE, 3, 64), RUNGS, seed=1, first=[best], earlier=[past]), 12)
    assert [trial.choices for trial in again.trials].count(best) == 1  # as the present settings


def test_a_winner_beyond_the_bounds_of_today_gives_way_to_the_best_within_them() -> None:
    past = told(11)
    best = winner(SPACE, past)
    assert best == min(past.trials, key=lambda trial: trial.curve[-1][1]).choices
    narrow = parse_space({"train.learning_rate": {"loguniform": [1e-2, 1e-1]}, "train.weight_decay": {"uniform": [0, 1]}})
    inside = winner(narrow, past)
    assert inside is not None and 1e-2 <= inside["train.learning_rate"] <= 1e-1
    assert winner(parse_space({"train.learning_rate": {"loguniform": [1e-2, 1e-1]}}), past) is None


def test_history_without_skill_is_left_out_and_costs_nothing() -> None:
    pool = Pool.of(SPACE, 3, 64)
    nothing, reasons = promise(pool, [told(11, "shuffled")], seed=1)
    assert nothing is None and "past is left out" in reasons[0]
    assert promise(pool, [told(11)], seed=1)[0] is not None
    plain, shuffled = (TuneMaster(Pool.of(SPACE, 3, 64), RUNGS, seed=1, earlier=e) for e in ([], [told(11, "shuffled")]))
    assert play(plain, 20) == play(shuffled, 20)


def test_history_of_another_space_says_nothing() -> None:
    other = Told(choices={"train.schedule": "linear"}, curve=((1, 0.5),))
    assert promise(Pool.of(SPACE, 3, 16), [Earlier(name="x", steps=9, trials=(other,) * 20)], seed=1)[0] is None


def test_losses_that_are_no_numbers_are_bad_and_nothing_more() -> None:
    pool = Pool.of(SPACE, 3, 32)
    trials = tuple(
        Seen(number=n, choices=pool.choices[n], curve=((1, math.inf if n % 2 else 0.5 + n / 100),)) for n in range(20)
    )
    view = View(steps=9, budget=32, trials=trials, looks=tuple((n, 1) for n in range(20)))
    move = TuneMaster(pool, RUNGS, seed=1).next(view)
    assert isinstance(move, Start) or move.trial % 2 == 0


def test_a_bounded_study_ends_with_its_leader_trained() -> None:
    view = play(TuneMaster(Pool.of(SPACE, 3, 64), RUNGS, seed=1), 200, left=60)
    assert sum(trial.step for trial in view.trials) <= 60
    assert min(view.trials, key=lambda trial: trial.loss).step == 9
    assert isinstance(ending(view, RUNGS), Stop)


def test_ladders() -> None:
    assert ladder(80, 3) == (27, 53, 80)
    assert ladder(80, 3, 3.0) == (9, 27, 80)
    assert ladder(2, 3, 3.0) == (1, 2)


def test_the_likelihood_and_its_gradient_agree() -> None:
    random = np.random.default_rng(0)
    features, rows = random.random((6, 2)), np.repeat(np.arange(6), 2)
    seen = Points(rows, np.tile([0.3, 1.0], 6), np.zeros(12))
    start = curves.prior_model(2).values
    task = curves._Likelihood(features[rows], seen, random.normal(size=12), start, 1.0, np.zeros(12))
    at = start + 0.1
    numeric = [(task(at + 1e-5 * e)[0] - task(at - 1e-5 * e)[0]) / 2e-5 for e in np.eye(len(at))]
    assert task(at)[1] == pytest.approx(numeric, rel=1e-3, abs=1e-4)
