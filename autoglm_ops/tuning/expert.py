"""One opinion of a study: the learning-curve model fitted to its looks, with what earlier studies promise or without it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.tuning import curves
from autoglm_ops.tuning.curves import Array, Model, Points, Posterior
from autoglm_ops.tuning.moves import View
from autoglm_ops.tuning.pool import Pool
from autoglm_ops.tuning.transfer import Promise, scaled

FITS = (12, 16, 20, 25, 30, 36, 45, 60, 80, 100, 150, 200, 300)
"""Numbers of started configurations at which hyper-parameters are fitted again."""
NEAR = 0.5
"""Freedom of hyper-parameters around those that history has shown, against 1 around the general ones."""


class _Fitted(NamedTuple):
    looks: tuple[tuple[int, int], ...]
    model: Model
    alike: Array


class Expert:
    """`least`: configurations to be scored before hyper-parameters are fitted. `rungs`: where trials are scored."""

    def __init__(self, pool: Pool, rungs: tuple[int, ...], seed: int, least: int, promise: Promise | None = None) -> None:
        self._pool, self._seed, self._promise = pool, seed, promise
        self._features = pool.features
        self._fits = tuple(count for count in FITS if count >= least)
        self._kept = _thinned(rungs)
        self._fitted = list[_Fitted]()

    def posterior(self, view: View, rows: list[int]) -> tuple[Posterior, float]:
        """What the model makes of the study so far, and the best value in it; of trials under way it takes what it expects of them, so
        that a round does not ask for one thing twice. `rows`: the pool's row of each trial."""
        fitted = self._model(view)
        seen, values = self._seen(view, rows)
        known = curves.condition(fitted.model, fitted.alike, seen, values)
        busy = [(row, trial.busy) for row, trial in zip(rows, view.trials, strict=True) if trial.busy]
        if not busy:
            return known, float(values.min())
        where = np.array([row for row, _ in busy], dtype=np.int64)
        asked = self.points(where, curves.log_time(np.array([step for _, step in busy]), view.steps))
        values = np.concatenate([values, curves.means(known, asked)])
        joined = Points(*(np.concatenate(pair) for pair in zip(seen, asked, strict=True)))
        expected = curves.condition(fitted.model, fitted.alike, joined, values)
        return expected._replace(evidence=known.evidence), float(values.min())

    def points(self, rows: NDArray[np.int64], time: Array) -> Points:
        """Places of the pool at log times, with what history promises there."""
        if self._promise is None:
            return Points(rows, time, np.zeros(len(rows)))
        return Points(rows, time, np.asarray(self._promise.final[rows] * time**self._promise.bend))

    def _seen(self, view: View, rows: list[int]) -> tuple[Points, Array]:
        """What is known, thinned: each curve's last loss, and those at steps that lie a factor of three apart."""
        row, step, loss = list[int](), list[int](), list[float]()
        for place, trial in zip(rows, view.trials, strict=True):
            for at, value in trial.curve:
                if at in self._kept or at == trial.step:
                    row.append(place)
                    step.append(at)
                    loss.append(value)
        first = np.array([trial.curve[0][1] for trial in view.trials if trial.curve])
        points = self.points(np.array(row, dtype=np.int64), curves.log_time(np.array(step), view.steps))
        return points, scaled(np.array(loss), first)

    def _model(self, view: View) -> _Fitted:
        """Hyper-parameters as fitted when the last of FITS was reached: a function of the looks alone, remembered."""
        features = self._features
        scored = sum(1 for trial in view.trials if trial.curve)
        start = self._promise.model if self._promise else curves.prior_model(features.shape[1])
        current = _Fitted((), start, np.zeros((0, 0)))
        for place, count in enumerate(count for count in self._fits if count <= scored):
            looks = _looks_until(view, count)
            if place < len(self._fitted) and self._fitted[place].looks == looks:
                current = self._fitted[place]
                continue
            current = self._fit(view.before(len(looks)), looks, start, current.model)
            self._fitted[place:] = [current]
        if not len(current.alike):
            current = current._replace(alike=curves.likeness(current.model, features, features))
        return current

    def _fit(self, view: View, looks: tuple[tuple[int, int], ...], around: Model, start: Model) -> _Fitted:
        seen, values = self._seen(view, [self._pool.row(trial.choices) for trial in view.trials])
        if len(values) > curves.FITTED:
            random = np.random.default_rng((self._seed, len(looks)))
            part = np.sort(random.choice(len(values), curves.FITTED, replace=False))
            seen, values = Points(seen.row[part], seen.time[part], seen.prior[part]), values[part]
        model = curves.fit(start, around, NEAR if self._promise else 1.0, self._features, seen, values)
        return _Fitted(looks, model, curves.likeness(model, self._features, self._features))


def _thinned(rungs: tuple[int, ...]) -> set[int]:
    kept = [rungs[0]]
    for rung in rungs:
        if rung >= 3 * kept[-1]:
            kept.append(rung)
    return set(kept)


def _looks_until(view: View, count: int) -> tuple[tuple[int, int], ...]:
    """The looks up to the one that started the `count`-th trial."""
    started = set[int]()
    for place, (trial, _) in enumerate(view.looks):
        started.add(trial)
        if len(started) == count:
            return view.looks[: place + 1]
    return view.looks
