"""What earlier studies promise of each configuration, and whether they deserve to be heard.

Two guards. A study whose own trials do not predict each other (shuffled, or pure noise) is left out before a step is spent: its
leave-one-out predictions must rank its trials better than MINIMAL_SKILL. What passes is only a prior mean, whose worth the new study
learns from its own looks (`curves.Model.trust`), so that a consistent but misleading history fades after a few of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import spearmanr

from autoglm_ops.contracts.record import Record
from autoglm_ops.tuning import curves
from autoglm_ops.tuning.curves import Array, Model, Points
from autoglm_ops.tuning.pool import Pool
from autoglm_ops.tuning.space import Space

MINIMAL_SKILL = 0.2
"""Rank correlation of leave-one-out predictions with what was measured."""
LEAST = 8
"""Trials below which a study says nothing."""
RIDGE = 0.1
SAMPLE = 64
TRUST = 0.25
"""Prior variance of history's worth; its prior mean is 1."""


class Told(Record):
    """One trial of an earlier study: its settings, and (step, loss) after each evaluation."""

    model_config = {**Record.model_config, "allow_inf_nan": True}

    choices: dict[str, Any]
    curve: tuple[tuple[int, float], ...]


class Earlier(Record):
    """An earlier study: `steps` of a whole training, and its trials that were scored at least once."""

    name: str
    steps: int
    trials: tuple[Told, ...]


class Promise(NamedTuple):
    """`final`: the promised value of each row of the pool at the end of training, on the curve model's scale. `model`: its start."""

    final: Array
    model: Model
    reasons: tuple[str, ...]


class _Heard(NamedTuple):
    final: Array
    skill: float
    model: Model


def promise(pool: Pool, earlier: Sequence[Earlier], seed: int) -> Promise | None:
    """The mean of what the studies with skill promise; None when none has."""
    heard, reasons = list[_Heard](), list[str]()
    for place, study in enumerate(earlier):
        usable = [trial for trial in study.trials if trial.curve and _fits(pool.space, trial.choices)]
        if len(usable) < LEAST:
            reasons.append(f"{study.name} is left out: {len(usable)} of its trials lie in this space, and {LEAST} are needed")
            continue
        found = _hear(pool, study.model_copy(update={"trials": tuple(usable)}), seed + place)
        said = f"its trials predict each other with rank correlation {found.skill:.2f}"
        if found.skill < MINIMAL_SKILL:
            reasons.append(f"{study.name} is left out: {said}, below {MINIMAL_SKILL}")
            continue
        reasons.append(f"{study.name} is heard: {said}")
        heard.append(found)
    if not heard:
        return None
    model = Model(np.mean([one.model.values for one in heard], axis=0), TRUST)
    return Promise(np.mean([one.final for one in heard], axis=0), model, tuple(reasons))


def scaled(losses: Array, first: Array) -> Array:
    """Losses as the model sees them: log against the median of the first looks, nothing above it, unit root mean square."""
    reference = max(float(np.median(np.where(np.isfinite(first), first, 1e9))), 1e-9)
    values = np.log(np.clip(np.nan_to_num(losses, nan=1e9, posinf=1e9), 1e-9, reference) / reference)
    return np.asarray(values / max(0.01, float(np.sqrt(np.mean(values**2)))))


def _hear(pool: Pool, study: Earlier, seed: int) -> _Heard:
    space, trials = pool.space, study.trials
    features = np.array([space.features(trial.choices) for trial in trials])
    model = _fitted(study, features, seed)
    first = np.array([trial.curve[0][1] for trial in trials])
    values = scaled(np.array([trial.curve[-1][1] for trial in trials]), first)
    times = curves.log_time(np.array([trial.curve[-1][0] for trial in trials]), study.steps)
    smooth = curves.likeness(model, features, features) * np.outer(times, times)
    smooth.flat[:: len(values) + 1] += RIDGE
    inverse = np.linalg.inv(smooth)
    mean = float(values @ times / (times @ times))
    weights = inverse @ (values - mean * times)
    left_out = values - weights / np.diag(inverse)
    skill = float(spearmanr(left_out, values).statistic) if values.std() > 0 and left_out.std() > 0 else 0.0
    final = mean + curves.likeness(model, pool.features, features) * times @ weights
    return _Heard(final, skill, model)


def _fitted(study: Earlier, features: Array, seed: int) -> Model:
    """Hyper-parameters from a sample of its trials, at the beginning, the middle and the end of each."""
    chosen = np.random.default_rng(seed).permutation(len(study.trials))[:SAMPLE]
    rows, steps, losses = list[int](), list[int](), list[float]()
    for row in chosen:
        curve = study.trials[row].curve
        for place in sorted({0, len(curve) // 3, len(curve) - 1}):
            rows.append(int(row))
            steps.append(curve[place][0])
            losses.append(curve[place][1])
    values = scaled(np.array(losses), np.array([study.trials[row].curve[0][1] for row in chosen]))
    seen = Points(np.array(rows), curves.log_time(np.array(steps), study.steps), np.zeros(len(rows)))
    start = curves.prior_model(features.shape[1])
    return curves.fit(start, start, 1.0, features, seen, values)


def _fits(space: Space, choices: dict[str, Any]) -> bool:
    """Whether it sets exactly what this space would; values beyond a bound still tell something."""
    wanted = {dimension.key for dimension in space.ordered if dimension.active(choices)}
    return choices.keys() == wanted
