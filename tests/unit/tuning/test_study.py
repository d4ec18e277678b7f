"""The study repeats itself, continues where it was killed, prunes, and stops hard. The trainer is a curve, not a model."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from autoglm_ops.contracts.training import TuningReport
from autoglm_ops.errors import BudgetSpent, Refused, Tampered, UsageError
from autoglm_ops.tuning.database import Database
from autoglm_ops.tuning.space import parse_space
from autoglm_ops.tuning.strategies import STRATEGIES, make
from autoglm_ops.tuning.study import Budget, Choices, Place, Session, Trainer, run

SPACE = parse_space({"train.learning_rate": {"loguniform": [1e-4, 1e-1]}, "train.schedule": {"choice": ["linear", "cosine"]}})
DEFAULT = {"train.learning_rate": 1e-1, "train.schedule": "linear"}
BUDGET = Budget(trials=6, steps=30, seconds=60, seed=5, context="data")
RUNGS = (10, 20, 30)
NAMES = ("random", "grid", "tpe", "hyperband", "halving", "tunemaster")


def quality(number: int, choices: Choices, since: int, to: int) -> float:
    """Best at a rate of 1e-3, on the way up."""
    return (1 - abs(math.log10(choices["train.learning_rate"]) + 3) / 5) * to / 30


def study(
    folder: Path,
    trainer: Trainer = quality,
    *,
    name: str = "tpe",
    budget: Budget = BUDGET,
    default: Choices = DEFAULT,
    **more: object,
) -> TuningReport:
    strategy = make(name, SPACE, RUNGS, seed=budget.seed, first=(default,))
    return run(Session(SPACE, default, strategy, budget, Place(folder=folder)), trainer, budget, **more)


class Dies:
    """The trainer of a process that is killed at its `at`-th look."""

    def __init__(self, at: int) -> None:
        self.left = at

    def __call__(self, number: int, choices: Choices, since: int, to: int) -> float:
        self.left -= 1
        if self.left == 0:
            raise KeyboardInterrupt
        return quality(number, choices, since, to)


def paused(name: str) -> Budget:
    """Strategies that pause may start more trials than they finish; all steps together are bounded."""
    return BUDGET.model_copy(update={"trials": 40, "total": 180} if name in {"halving", "tunemaster"} else {})


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> TuningReport:
    return study(tmp_path_factory.mktemp("study"))


def test_trial_zero_is_the_present_settings_and_the_best_is_never_worse(unbroken: TuningReport) -> None:
    assert unbroken.trials[0].params == DEFAULT
    assert [trial.number for trial in unbroken.trials] == list(range(6))
    assert unbroken.best_value == max(trial.value for trial in unbroken.trials if trial.value is not None)
    assert unbroken.best_value > (unbroken.trials[0].value or 1)
    assert unbroken.trials[0].curve == tuple((step, pytest.approx(0.6 * step / 30)) for step in (10, 20, 30))
    assert "beats the present settings" in unbroken.reasons[0]


@pytest.mark.parametrize("name", NAMES)
def test_every_strategy_repeats_itself_and_ends_with_terminal_trials(name: str, tmp_path: Path) -> None:
    first = study(tmp_path / "a", name=name, budget=paused(name))
    assert study(tmp_path / "b", name=name, budget=paused(name)).to_json() == first.to_json()
    assert {trial.state for trial in first.trials} <= {"complete", "pruned", "failed"}
    assert first.best_value is not None and first.best_value >= (first.trials[0].value or 0)


@pytest.mark.parametrize("name", ["halving", "tunemaster"])
def test_what_pauses_keeps_to_the_steps_it_has(name: str, tmp_path: Path) -> None:
    report = study(tmp_path, name=name, budget=paused(name))
    assert sum(trial.curve[-1][0] for trial in report.trials) <= 180
    assert len(report.trials) > 6  # six whole trainings would have taken as long
    assert any(trial.state == "pruned" for trial in report.trials)


def test_every_strategy_of_the_catalog_is_tried_here() -> None:
    assert set(STRATEGIES.names()) == {*NAMES, "gp"}


@pytest.mark.parametrize("name", ["tpe", "tunemaster"])
@pytest.mark.parametrize("at", [1, 5, 14])
def test_a_killed_study_continues_to_the_same_report(name: str, tmp_path: Path, at: int) -> None:
    whole = study(tmp_path / "whole", name=name, budget=paused(name))
    with pytest.raises(KeyboardInterrupt):
        study(tmp_path / "cut", Dies(at), name=name, budget=paused(name))
    asked = []

    def counting(number: int, choices: Choices, since: int, to: int) -> float:
        asked.append((number, to))
        return quality(number, choices, since, to)

    assert study(tmp_path / "cut", counting, name=name, budget=paused(name)).to_json() == whole.to_json()
    assert len(asked) == sum(len(trial.curve) for trial in whole.trials) - (at - 1)


def test_a_process_killed_at_any_point_leaves_every_trial_terminal(tmp_path: Path) -> None:
    """SIGKILL from outside, again and again, then one that may finish."""
    script = (
        "import sys, time; sys.path[:0] = sys.argv[2:]; from pathlib import Path; import test_study as t\n"
        "def slow(*asked):\n    print('look', flush=True); time.sleep(0.01); return t.quality(*asked)\n"
        "t.study(Path(sys.argv[1]), slow, name='tunemaster', budget=t.paused('tunemaster')); print('done', flush=True)\n"
    )
    whole = study(tmp_path / "whole", name="tunemaster", budget=paused("tunemaster"))
    folder = tmp_path / "cut"
    for kill_at in (1, 6, 10_000):
        command = [sys.executable, "-c", script, str(folder), str(Path(__file__).parent)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for count, _ in enumerate(process.stdout, 1):
                if count >= kill_at:
                    os.kill(process.pid, signal.SIGKILL)
                    break
    database = Database(folder, None, paused("tunemaster").name, SPACE, DEFAULT)
    assert set(database.states) <= {"complete", "pruned", "failed"}
    assert study(folder, name="tunemaster", budget=paused("tunemaster")).to_json() == whole.to_json()


def test_a_trial_that_died_before_its_first_look_is_tried_anew(unbroken: TuningReport, tmp_path: Path) -> None:
    database = Database(tmp_path, None, BUDGET.name, SPACE, DEFAULT)
    database.create(DEFAULT)
    assert len(Database(tmp_path, None, BUDGET.name, SPACE, DEFAULT)) == 0
    assert study(tmp_path).to_json() == unbroken.to_json()


def test_a_finished_study_of_other_data_is_not_taken_for_this_one(unbroken: TuningReport, tmp_path: Path) -> None:
    study(tmp_path, lambda *asked: 0.1, budget=BUDGET.model_copy(update={"context": "other"}))
    assert study(tmp_path).to_json() == unbroken.to_json()


def test_a_study_with_a_changed_space_is_refused_and_kept(unbroken: TuningReport, tmp_path: Path) -> None:
    study(tmp_path)
    wider = parse_space(
        {"train.learning_rate": {"loguniform": [1e-5, 1e-1]}, "train.schedule": {"choice": ["linear", "cosine"]}}
    )
    with pytest.raises(Refused, match=r"space-changed: .*train.learning_rate: .*0.0001.* becomes .*1e-05"):
        Database(tmp_path, None, BUDGET.name, wider, DEFAULT)
    assert study(tmp_path).to_json() == unbroken.to_json()


def test_a_torn_database_is_refused_and_left_alone(tmp_path: Path) -> None:
    study(tmp_path)
    path = tmp_path / "study.db"
    torn = b"torn" * 100 + path.read_bytes()[400:]
    path.write_bytes(torn)
    with pytest.raises(Tampered, match=r"study-torn: study\.db is no readable study"):
        study(tmp_path)
    assert path.read_bytes() == torn


def test_hopeless_trials_are_pruned(tmp_path: Path) -> None:
    report = study(tmp_path, budget=BUDGET.model_copy(update={"trials": 14}), default={**DEFAULT, "train.learning_rate": 1e-3})
    states = [trial.state for trial in report.trials]
    assert "pruned" in states
    assert all(trial.value is None and len(trial.curve) < 3 for trial in report.trials if trial.state == "pruned")
    assert report.best == report.trials[0].params
    assert "were not beaten" in report.reasons[0]


@pytest.mark.parametrize(
    ("limit", "said"),
    [({"seconds": 10}, r"tune.seconds is 10, in trial \d of 6 at step \d+; raise tune.seconds"), ({"cost": 5, "hourly": 3600}, r"tuning cost 6.00 and tune.budget.cost is 5")],
)  # fmt: skip
def test_the_hard_stop_fails_and_keeps_what_is_done(
    unbroken: TuningReport, tmp_path: Path, limit: dict[str, float], said: str
) -> None:
    ticks = iter(range(10_000))
    with pytest.raises(BudgetSpent, match=said):
        study(tmp_path, budget=BUDGET.model_copy(update=limit), clock=lambda: next(ticks))
    assert study(tmp_path).to_json() == unbroken.to_json()


@pytest.mark.parametrize("name", ["tpe", "tunemaster", "halving"])
def test_a_trial_that_cannot_be_trained_is_failed_and_the_study_goes_on(name: str, tmp_path: Path) -> None:
    def diverges(number: int, choices: Choices, since: int, to: int) -> float:
        if choices["train.learning_rate"] > 1e-2:
            raise Refused("diverged")
        return quality(number, choices, since, to)

    report = study(tmp_path, diverges, name=name, budget=paused(name))
    assert report.trials[0].state == "failed"
    assert report.best_value is not None


def test_a_study_in_which_nothing_trains_is_refused(tmp_path: Path) -> None:
    def never(number: int, choices: Choices, since: int, to: int) -> float:
        raise Refused("diverged")

    with pytest.raises(Refused, match="none of 2 trials could be trained"):
        study(tmp_path, never, budget=BUDGET.model_copy(update={"trials": 2}))


def test_present_settings_outside_a_range_are_tried_all_the_same(tmp_path: Path) -> None:
    report = study(tmp_path, default={**DEFAULT, "train.learning_rate": 0.5})
    assert report.trials[0].params["train.learning_rate"] == 0.5
    assert len(report.trials) == 6


def test_a_present_value_outside_the_choices_is_a_usage_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'constant' is not among the choices"):
        study(tmp_path, default={**DEFAULT, "train.schedule": "constant"})
