"""One study in one warm process: ask, train, tell. The only importer of optuna.

The same seed and space give the same trials and values on every run of a machine: the sampler is seeded anew for each trial by its
number, the budget is counted in trials and steps, and the only look at a clock is the hard stop, which fails the study and never
bends it. SQLite keeps every finished trial, so that a killed study continues; the trial it was in is begun again.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.contracts.training import Trial, TuningReport
from autoglm_ops.errors import BudgetSpent, Refused, UsageError
from autoglm_ops.tuning.space import Dimension, Space

log = logging.getLogger(__name__)

STARTUP = 4
"""Trials before the model of TPE and the median of the pruner are trusted."""
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}

Choices = dict[str, Any]
Report = Callable[[int, float], None]
"""Told (step, score) after each evaluation of a trial. It raises `Pruned` when the trial is not worth its rest."""
Objective = Callable[[Choices, Report], float]
"""Train with these choices; returns the score to maximise. Raises Refused when the choices cannot be trained."""


class Pruned(Exception):
    """This trial is below the median of the earlier ones."""


class Budget(Record):
    """trials: how many. seconds: the hard stop of this process. seed: of the sampler. context: digest of what else the scores depend on."""

    trials: int
    seconds: float
    seed: int
    context: str


def run(
    space: Space,
    default: Mapping[str, Any],
    objective: Objective,
    budget: Budget,
    folder: Path,
    clock: Callable[[], float] = time.monotonic,
) -> TuningReport:
    """Run or continue the study in `folder`. Trial 0 is `default`, the present settings, so the best is never worse than they are.

    Raises BudgetSpent at the hard stop (finished trials are kept), Refused when no trial could be trained, UsageError when the
    present value of a choice is not among its options.
    """
    started = clock()
    study = _open(space, default, budget, folder)
    while len(study.trials) < budget.trials or study.trials[-1].state == TrialState.WAITING:
        _one(study, space, objective, budget, lambda: clock() - started)
    return _report(study, space)


def _one(study: optuna.Study, space: Space, objective: Objective, budget: Budget, age: Callable[[], float]) -> None:
    number = sum(trial.state.is_finished() for trial in study.trials)
    study.sampler = optuna.samplers.TPESampler(seed=budget.seed + number, n_startup_trials=STARTUP)
    trial = study.ask(_distributions(space))

    def report(step: int, score: float) -> None:
        trial.report(score, step)
        if age() > budget.seconds:
            raise BudgetSpent(
                f"budget-spent: tuning took {age():.0f} s and tune.seconds is {budget.seconds:g}, in trial {number + 1} of {budget.trials} "
                f"at step {step}; raise tune.seconds, or lower tune.trials or tune.steps. Finished trials are kept for the next attempt"
            )
        if number > 0 and trial.should_prune():
            raise Pruned

    try:
        study.tell(trial, objective(dict(trial.params), report))
    except Pruned:
        study.tell(trial, state=TrialState.PRUNED)
    except BudgetSpent:
        raise
    except Refused as error:
        log.warning("trial %d failed: %s", number, error)
        study.tell(trial, state=TrialState.FAIL)
    done = study.trials[-1]
    log.info("trial %d of %d %s: %s → %s", number + 1, budget.trials, _STATES[done.state], done.params, done.value)


def _open(space: Space, default: Mapping[str, Any], budget: Budget, folder: Path) -> optuna.Study:
    """The study with every finished trial of an earlier attempt and nothing else. Rebuilt in a new file, which then takes the old one's name."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    path, staged = folder / "study.db", folder / "study.db.new"
    name = digest_of({"space": space.as_settings(), "default": dict(default), "seed": budget.seed, "context": budget.context})
    finished = _finished(path, name)
    staged.unlink(missing_ok=True)
    study = _create(staged, name)
    study.add_trials(finished)
    if finished:
        log.info("continuing the study: %d of %d trials are done", len(finished), budget.trials)
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # present settings may lie outside the space, and are tried all the same
            study.enqueue_trial(_checked(space, default))
    os.replace(staged, path)
    return _create(path, name)


def _create(path: Path, name: str) -> optuna.Study:
    pruner = optuna.pruners.MedianPruner(n_startup_trials=STARTUP, n_warmup_steps=0)
    return optuna.create_study(
        storage=f"sqlite:///{path}", study_name=name, direction="maximize", pruner=pruner, load_if_exists=True
    )


def _finished(path: Path, name: str) -> list[FrozenTrial]:
    if not path.exists() or name not in optuna.get_all_study_names(f"sqlite:///{path}"):
        return []
    trials: list[FrozenTrial] = []
    for trial in _create(path, name).trials:
        if not trial.state.is_finished():
            break  # numbers stay gapless: they seed the sampler
        trials.append(trial)
    return trials


def _checked(space: Space, default: Mapping[str, Any]) -> Choices:
    for dimension in space.dimensions:
        value = default[dimension.key]
        if dimension.kind == "choice" and not dimension.contains(value):
            raise UsageError(
                f"tune.space.{dimension.key}: the present value {value!r} is not among the choices {list(dimension.options)!r}, and the "
                "first trial is the present settings; add it"
            )
    return {dimension.key: default[dimension.key] for dimension in space.dimensions}


def _distributions(space: Space) -> dict[str, BaseDistribution]:
    return {dimension.key: _distribution(dimension) for dimension in space.dimensions}


def _distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.kind == "choice":
        return CategoricalDistribution(dimension.options)
    if dimension.kind == "int":
        return IntDistribution(int(dimension.low), int(dimension.high))
    return FloatDistribution(dimension.low, dimension.high, log=dimension.kind == "loguniform")


def _report(study: optuna.Study, space: Space) -> TuningReport:
    trials = tuple(_trial(frozen) for frozen in study.trials)
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    if not complete:
        raise Refused(
            f"none of {len(trials)} trials could be trained; look at the log, and lower the bounds of train.learning_rate"
        )
    best = max(complete, key=lambda trial: (trial.value or 0.0, -trial.number))
    why = (
        "the present settings were not beaten"
        if best.number == 0
        else f"trial {best.number} beats the present settings, trial 0"
    )
    counts = ", ".join(f"{sum(trial.state == state for trial in trials)} {state}" for state in _STATES.values())
    return TuningReport(
        verdict="tuned",
        objective="validation macro-F1",
        direction="maximize",
        space=space.as_settings(),
        trials=trials,
        best=best.params,
        best_value=best.value,
        reasons=(f"{why}: {best.value}, against {trials[0].value}", f"{len(trials)} trials: {counts}"),
    )


def _trial(frozen: FrozenTrial) -> Trial:
    return Trial.model_validate(
        {
            "number": frozen.number,
            "params": frozen.params,
            "state": _STATES[frozen.state],
            "value": frozen.value if frozen.state == TrialState.COMPLETE else None,
            "curve": tuple(sorted(frozen.intermediate_values.items())),
        }
    )
