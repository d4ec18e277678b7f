"""The study repeats itself, continues where it was killed, prunes, and stops hard. The objective is a curve, not a model."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from autoglm_ops.contracts.training import TuningReport
from autoglm_ops.errors import BudgetSpent, Refused, UsageError
from autoglm_ops.tuning.space import parse_space
from autoglm_ops.tuning.study import Budget, Choices, Report, run

SPACE = parse_space({"train.learning_rate": {"loguniform": [1e-4, 1e-1]}, "train.schedule": {"choice": ["linear", "cosine"]}})
DEFAULT = {"train.learning_rate": 1e-1, "train.schedule": "linear"}
BUDGET = Budget(trials=6, seconds=60, seed=5, context="data")


def quality(choices: Choices, report: Report) -> float:
    """Best at a rate of 1e-3; three evaluations on the way up."""
    best = 1 - abs(math.log10(choices["train.learning_rate"]) + 3) / 5
    for step in (10, 20, 30):
        report(step, best * step / 30)
    return best


class Dies:
    """The objective of a process that is killed at its `at`-th evaluation."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, choices: Choices, report: Report) -> float:
        def counted(step: int, score: float) -> None:
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
            report(step, score)

        return quality(choices, counted)


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> TuningReport:
    return run(SPACE, DEFAULT, quality, BUDGET, tmp_path_factory.mktemp("study"))


def test_trial_zero_is_the_present_settings_and_the_best_is_never_worse(unbroken: TuningReport) -> None:
    assert unbroken.trials[0].params == DEFAULT
    assert [trial.number for trial in unbroken.trials] == list(range(6))
    assert unbroken.best_value == max(trial.value for trial in unbroken.trials if trial.value is not None)
    assert unbroken.best_value > (unbroken.trials[0].value or 1)
    assert unbroken.trials[0].curve == tuple((step, pytest.approx(0.6 * step / 30)) for step in (10, 20, 30))
    assert "beats the present settings" in unbroken.reasons[0]


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(unbroken: TuningReport, tmp_path: Path) -> None:
    assert run(SPACE, DEFAULT, quality, BUDGET, tmp_path / "a").to_json() == unbroken.to_json()
    other = run(SPACE, DEFAULT, quality, BUDGET.model_copy(update={"seed": 6}), tmp_path / "b")
    assert other.trials[1].params != unbroken.trials[1].params


@pytest.mark.parametrize("at", [1, 5, 14])
def test_a_killed_study_continues_to_the_same_report(unbroken: TuningReport, tmp_path: Path, at: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(SPACE, DEFAULT, Dies(at), BUDGET, tmp_path)
    asked = []

    def counting(choices: Choices, report: Report) -> float:
        asked.append(choices)
        return quality(choices, report)

    assert run(SPACE, DEFAULT, counting, BUDGET, tmp_path).to_json() == unbroken.to_json()
    assert len(asked) < 6 or at <= 3


def test_a_finished_study_of_other_data_is_not_taken_for_this_one(unbroken: TuningReport, tmp_path: Path) -> None:
    run(SPACE, DEFAULT, lambda choices, report: 0.1, BUDGET.model_copy(update={"context": "other"}), tmp_path)
    assert run(SPACE, DEFAULT, quality, BUDGET, tmp_path).to_json() == unbroken.to_json()


def test_hopeless_trials_are_pruned(tmp_path: Path) -> None:
    report = run(SPACE, {**DEFAULT, "train.learning_rate": 1e-3}, quality, BUDGET.model_copy(update={"trials": 14}), tmp_path)
    states = [trial.state for trial in report.trials]
    assert "pruned" in states
    assert all(trial.value is None and len(trial.curve) < 3 for trial in report.trials if trial.state == "pruned")
    assert report.best == report.trials[0].params
    assert "were not beaten" in report.reasons[0]


def test_the_hard_stop_fails_and_keeps_what_is_done(unbroken: TuningReport, tmp_path: Path) -> None:
    ticks = iter(range(10_000))
    with pytest.raises(BudgetSpent, match=r"tune.seconds is 10, in trial \d of 6 at step \d+; raise tune.seconds"):
        run(SPACE, DEFAULT, quality, BUDGET.model_copy(update={"seconds": 10}), tmp_path, clock=lambda: next(ticks))
    assert run(SPACE, DEFAULT, quality, BUDGET, tmp_path).to_json() == unbroken.to_json()


def test_a_trial_that_cannot_be_trained_is_failed_and_the_study_goes_on(tmp_path: Path) -> None:
    def diverges(choices: Choices, report: Report) -> float:
        if choices["train.learning_rate"] > 1e-2:
            raise Refused("diverged")
        return quality(choices, report)

    report = run(SPACE, DEFAULT, diverges, BUDGET, tmp_path)
    assert report.trials[0].state == "failed"
    assert report.best_value is not None


def test_a_study_in_which_nothing_trains_is_refused(tmp_path: Path) -> None:
    def never(choices: Choices, report: Report) -> float:
        raise Refused("diverged")

    with pytest.raises(Refused, match="none of 2 trials could be trained"):
        run(SPACE, DEFAULT, never, BUDGET.model_copy(update={"trials": 2}), tmp_path)


def test_present_settings_outside_a_range_are_tried_all_the_same(tmp_path: Path) -> None:
    report = run(SPACE, {**DEFAULT, "train.learning_rate": 0.5}, quality, BUDGET, tmp_path)
    assert report.trials[0].params["train.learning_rate"] == 0.5
    assert len(report.trials) == 6


def test_a_present_value_outside_the_choices_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'constant' is not among the choices"):
        run(SPACE, {**DEFAULT, "train.schedule": "constant"}, quality, BUDGET, tmp_path)
