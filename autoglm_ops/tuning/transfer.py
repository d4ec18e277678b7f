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
from autoglm_ops.tuning.curves import Array, Model, Places, Points
from autoglm_ops.tuning.pool import Pool
from autoglm_ops.tuning.space import Space

MINIMAL_SKILL = 0.2
"""Rank correlation of leave-one-out predictions with what was measured."""
LEAST = 8
"""Trials below which a study says nothing."""
RIDGE = 0.1
SAMPLE = 64
BENDS = (0.7, 1.0, 1.4, 2.0, 2.8)
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
    """`final`: the promised value of each row of the pool at the end of training, on the curve model's scale; at log time t it is
    final × t^bend. `model`: where hyper-parameters start. `heard`: places of the studies it stands on, newest first."""

    final: Array
    bend: float
    model: Model
    heard: tuple[int, ...]


class _Heard(NamedTuple):
    final: Array
    bend: float
    skill: float
    model: Model


def promise(pool: Pool, earlier: Sequence[Earlier], seed: int) -> tuple[Promise | None, tuple[str, ...]]:
    """The mean of what the studies with skill promise, None when none has; and what became of each."""
    heard, reasons = dict[int, _Heard](), list[str]()
    for place, study in enumerate(earlier):
        usable = _usable(pool.space, study)
        if len(usable) < LEAST:
            reasons.append(f"{study.name} is left out: {len(usable)} of its trials lie in this space, and {LEAST} are needed")
            continue
        found = _hear(pool, study.model_copy(update={"trials": tuple(usable)}), seed + place)
        said = f"its trials predict each other with rank correlation {found.skill:.2f}"
        if found.skill < MINIMAL_SKILL:
            reasons.append(f"{study.name} is left out: {said}, below {MINIMAL_SKILL}")
            continue
        reasons.append(f"{study.name} is heard: {said}")
        heard[place] = found
    if not heard:
        return None, tuple(reasons)
    trusted = list(heard.values())
    model = Model(np.mean([one.model.values for one in trusted], axis=0), TRUST)
    bend = float(np.mean([one.bend for one in trusted]))
    return Promise(np.mean([one.final for one in trusted], axis=0), bend, model, tuple(reversed(heard))), tuple(reasons)


def winner(space: Space, study: Earlier) -> dict[str, Any] | None:
    """The best trial's settings, of those within this space's bounds."""
    inside = [
        trial
        for trial in _usable(space, study)
        if all(
            dimension.contains(trial.choices[dimension.key]) for dimension in space.ordered if dimension.active(trial.choices)
        )
    ]
    return min(inside, key=lambda trial: min(loss for _, loss in trial.curve)).choices if inside else None


def scaled(losses: Array, first: Array) -> Array:
    """Losses as the model sees them: log against the median of the first looks, nothing above it, its root, unit root mean square.

    The root makes curves straight in log time, so that a small lead at an early look says as much as it should: 40 times fewer steps than
    random instead of 28 (cold, three development tasks); the power 0.35 was no better (35).
    A low quantile (0.3) of the first looks at random configurations only was tried for tasks where many diverge at once, and lost on others.
    """
    reference = max(float(np.median(np.where(np.isfinite(first), first, 1e9))), 1e-9)
    values = -np.sqrt(-np.log(np.clip(np.nan_to_num(losses, nan=1e9, posinf=1e9), 1e-9, reference) / reference))
    return np.asarray(values / max(0.01, float(np.sqrt(np.mean(values**2)))))


def _hear(pool: Pool, study: Earlier, seed: int) -> _Heard:
    features = np.array([pool.space.features(trial.choices) for trial in study.trials])
    places = [sorted({0, len(trial.curve) // 3, len(trial.curve) - 1}) for trial in study.trials]
    rows = np.array([row for row, chosen in enumerate(places) for _ in chosen])
    points = [study.trials[row].curve[place] for row, chosen in enumerate(places) for place in chosen]
    values = scaled(np.array([loss for _, loss in points]), np.array([trial.curve[0][1] for trial in study.trials]))
    times = curves.log_time(np.array([step for step, _ in points]), study.steps)
    model = _fitted(features, rows, times, values, seed)
    last = np.append(np.flatnonzero(np.diff(rows)), len(rows) - 1)
    bend = _bend(times / times[last][rows], values, values[last][rows])
    final, skill = _smoothed(model, features, pool.features, times[last] ** bend, values[last])
    return _Heard(final, bend, skill, model)


def _smoothed(model: Model, features: Array, asked: Array, reach: Array, values: Array) -> tuple[Array, float]:
    """What the trials' last values say of each asked row at the end of training, and the skill of that. `reach`: how far each came."""
    smooth = curves.likeness(model, features, features) * np.outer(reach, reach)
    smooth.flat[:: len(values) + 1] += RIDGE
    inverse = np.linalg.inv(smooth)
    mean = float(values @ reach / (reach @ reach))
    weights = inverse @ (values - mean * reach)
    left_out = values - weights / np.diag(inverse)
    varied = values.std() > 0 and left_out.std() > 0
    skill = float(spearmanr(left_out, values).statistic) if varied else 0.0
    return mean + curves.likeness(model, asked, features) @ (reach * weights), skill


def _bend(time: Array, values: Array, final: Array) -> float:
    """The power of log time by which curves come to their last value, by least squares over BENDS."""
    errors = [float(((values - final * time**power) ** 2).sum()) for power in BENDS]
    return BENDS[int(np.argmin(errors))]


def _fitted(features: Array, rows: Places, times: Array, values: Array, seed: int) -> Model:
    """Hyper-parameters from a sample of the trials."""
    chosen = np.random.default_rng(seed).permutation(len(features))[:SAMPLE]
    part = np.flatnonzero(np.isin(rows, chosen))
    seen = Points(rows[part], times[part], np.zeros(len(part)))
    start = curves.prior_model(features.shape[1])
    return curves.fit(start, start, 1.0, features, seen, values[part])


def _usable(space: Space, study: Earlier) -> list[Told]:
    return [trial for trial in study.trials if trial.curve and _fits(space, trial.choices)]


def _fits(space: Space, choices: dict[str, Any]) -> bool:
    """Whether it sets exactly what this space would; values beyond a bound still tell something."""
    wanted = {dimension.key for dimension in space.ordered if dimension.active(choices)}
    return choices.keys() == wanted
