"""How much of a study's differences each setting explains: Optuna's fANOVA over its finished trials (Hutter, Hoos, Leyton-Brown 2014)."""

from __future__ import annotations

import warnings

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState, create_trial

from autoglm_ops.contracts.training import Trial, TuningReport
from autoglm_ops.tuning.samplers import suggest
from autoglm_ops.tuning.space import Space, parse_space

LEAST = 4
"""Finished trials below which nothing is said."""


def importance(report: TuningReport) -> dict[str, float]:
    """Setting -> share of the variance, largest first; empty when there are too few trials, or they do not differ.

    Only settings that every finished trial has (no condition ruled them out), and only values within the space, can be weighed.
    """
    space = parse_space(report.space)
    trials = [
        trial for trial in report.trials if trial.state == "complete" and trial.value is not None and _inside(trial, space)
    ]
    if len(trials) < LEAST or len({trial.value for trial in trials}) < 2:
        return {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction=report.direction)
    distributions = _distributions(space)
    for trial in trials:
        own = {key: distributions[key] for key in trial.params}
        study.add_trial(
            create_trial(state=TrialState.COMPLETE, params=dict(trial.params), distributions=own, value=trial.value)
        )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {key: round(float(share), 4) for key, share in found.items()}


def _inside(trial: Trial, space: Space) -> bool:
    known = {dimension.key: dimension for dimension in space.dimensions}
    return all(key in known and known[key].contains(value) for key, value in trial.params.items())


def _distributions(space: Space) -> dict[str, optuna.distributions.BaseDistribution]:
    """Of every dimension, conditions left out: asked of one throw-away trial each."""
    free = Space(dimensions=tuple(dimension.model_copy(update={"when": None}) for dimension in space.dimensions))
    trial = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    suggest(trial, free)
    return dict(trial.distributions)
