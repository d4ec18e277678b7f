"""Trials of a round: asked together, told in order, the same study whoever trains them, in whatever order they come back."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path

import pytest
import test_study as one

from autoglm_ops.contracts.training import TuningReport
from autoglm_ops.errors import BudgetSpent, Refused
from autoglm_ops.tuning.rounds import Look
from autoglm_ops.tuning.strategies import make
from autoglm_ops.tuning.study import Budget, Choices, Place, Session, run

NAMES = ("tpe", "halving", "tunemaster")


def budget_of(name: str, parallel: int) -> Budget:
    """Small: every coordinator of a round opens the database anew."""
    return one.paused(name).model_copy(
        update={"parallel": parallel, "trials": 30 if name in NAMES[1:] else 5, "total": 90 if name in NAMES[1:] else None}
    )


def fresh(folder: Path, name: str, parallel: int) -> Session:
    """The coordinator of a new process."""
    budget = budget_of(name, parallel)
    strategy = make(name, one.SPACE, one.RUNGS, seed=budget.seed, first=(one.DEFAULT,))
    return Session(one.SPACE, one.DEFAULT, strategy, budget, Place(folder=folder))


def whole(folder: Path, name: str, parallel: int) -> TuningReport:
    """The same study in one process."""
    return run(fresh(folder, name, parallel), one.quality, budget_of(name, parallel))


@pytest.mark.parametrize("name", NAMES)
def test_a_new_coordinator_for_each_round_and_late_answers_give_the_same_study(name: str, tmp_path: Path) -> None:
    chance = random.Random(name)
    widths = list[int]()
    told: dict[str, float] = {}

    def answered(number: int, choices: Choices, since: int, to: int) -> float:
        return told[Look(number=number, choices=choices, since=since, to=to).to_json()]

    while looks := (session := fresh(tmp_path / "tasks", name, 3)).pending():
        widths.append(len(looks))
        for look in chance.sample(looks, len(looks)):  # they come back in any order
            told[look.to_json()] = one.quality(look.number, dict(look.choices), look.since, look.to)
        for look in looks[: chance.choice([1, len(looks), len(looks)])]:  # and the coordinator may be killed half-way
            session.take(look, answered)
    assert session.report().to_json() == whole(tmp_path / "one", name, 3).to_json()
    assert max(widths) == 3


@pytest.mark.parametrize("name", ("random", "grid", "hyperband"))
def test_a_round_holds_distinct_trials_and_keeps_to_the_budget(name: str, tmp_path: Path) -> None:
    steps = 0
    session = fresh(tmp_path, name, 4)
    while looks := session.pending():
        assert len({look.number for look in looks}) == len(looks)
        fresh_ones = [tuple(sorted(look.choices.items())) for look in looks if look.since == 0]
        assert len(set(fresh_ones)) == len(fresh_ones)
        for look in looks:
            session.take(look, one.quality)
            steps += look.to - look.since
    assert steps <= (budget_of(name, 4).total or 10_000)
    assert {trial.state for trial in session.report().trials} <= {"complete", "pruned"}


def test_a_trial_that_fails_in_a_round_leaves_the_others(tmp_path: Path) -> None:
    def diverges(number: int, choices: Choices, since: int, to: int) -> float:
        if number == 1:
            raise Refused("diverged")
        return one.quality(number, choices, since, to)

    session = fresh(tmp_path, "tpe", 3)
    while looks := session.pending():
        for look in looks:
            session.take(look, diverges)
    states = [trial.state for trial in session.report().trials]
    assert states[1] == "failed" and "failed" not in states[:1] + states[2:] and len(states) == 5


def test_rounds_are_fetched_whole_and_the_time_they_wait_in_a_queue_is_not_the_studys(tmp_path: Path) -> None:
    now, fetched = [0.0], list[tuple[Look, ...]]()

    def fetch(looks: Sequence[Look]) -> None:
        now[0] += 10_000
        fetched.append(tuple(looks))

    budget = budget_of("tpe", 3)
    report = run(fresh(tmp_path / "away", "tpe", 3), one.quality, budget, clock=lambda: now[0], fetch=fetch)
    assert report.to_json() == whole(tmp_path / "here", "tpe", 3).to_json()
    assert budget.seconds < 10_000 and max(map(len, fetched)) == 3


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({}, "tuning took 108000 s of all trials together and tune.seconds is 60, in trial 1 of 5 at step 10"),
        ({"seconds": 1e9, "cost": 1.0, "hourly": 10}, "tuning cost 300.00 and tune.budget.cost is 1, in trial 1 of 5"),
    ],
)
def test_what_was_trained_elsewhere_counts_for_the_hard_stop(limit: dict[str, float], said: str, tmp_path: Path) -> None:
    """The queue does not; and whoever goes on after the stop finds what was measured."""
    now, told = [0.0], dict[str, float]()

    def fetch(looks: Sequence[Look]) -> None:
        for look in looks:
            now[0] += 0 if look.to_json() in told else 36_000
            told[look.to_json()] = 36_000

    def reported() -> float:
        return sum(told.values())

    budget = budget_of("tpe", 3).model_copy(update=limit)
    with pytest.raises(BudgetSpent, match=said):
        run(fresh(tmp_path, "tpe", 3), one.quality, budget, clock=lambda: now[0], fetch=fetch, reported=reported)
    assert len(told) == 3
    with pytest.raises(BudgetSpent):  # a killed coordinator's heir begins no more
        run(fresh(tmp_path, "tpe", 3), one.quality, budget, clock=lambda: now[0], fetch=fetch, reported=reported)
    assert len(told) == 3
    report = run(fresh(tmp_path, "tpe", 3), one.quality, budget_of("tpe", 3), clock=lambda: now[0], fetch=fetch)
    assert report.to_json() == whole(tmp_path / "here", "tpe", 3).to_json()
