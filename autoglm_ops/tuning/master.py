"""TuneMaster: freeze-thaw over a pool of configurations, chosen by a learning-curve model, warm-started by earlier studies.

Each move goes to the configuration, new or paused, whose end promises the largest expected improvement per cost on the best loss seen,
and trains it to its next rung only. A tenth of the steps buys first looks at random configurations, so that a model that is wrong costs
a bounded share. The constants were chosen on three of the six benchmark tables (tests/benchmarks/bench_tune.py names them).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.tuning import curves
from autoglm_ops.tuning.curves import Array, Model, Points
from autoglm_ops.tuning.moves import Continue, Move, Start, Stop, View, ending, following
from autoglm_ops.tuning.pool import Pool
from autoglm_ops.tuning.transfer import Earlier, promise, scaled

COLD, WARM = 16, 4
"""First looks at random configurations before the model is asked, without and with history."""
FITS = (12, 16, 20, 25, 30, 36, 45, 60, 80, 100, 150, 200, 300)
"""Numbers of started configurations at which hyper-parameters are fitted again."""
EXPLORE = 0.1
NEAR = 0.5
"""Freedom of hyper-parameters around those that history has shown, against 1 around the general ones."""

Cost = Callable[[Mapping[str, Any]], float]


class _Fitted(NamedTuple):
    looks: tuple[tuple[int, int], ...]
    model: Model
    alike: Array


class TuneMaster:
    """A `Strategy`. `first`: configurations to look at before all others (the present settings). `cost` of one step, in any unit.
    `reasons`: what became of the earlier studies."""

    def __init__(
        self,
        pool: Pool,
        rungs: Sequence[int],
        *,
        seed: int,
        first: Sequence[Mapping[str, Any]] = (),
        earlier: Sequence[Earlier] = (),
        cost: Cost = lambda choices: 1.0,
    ) -> None:
        self._pool, self._rungs, self._seed = pool, tuple(rungs), seed
        self._first = [pool.row(choices) for choices in first]
        self._order = np.random.default_rng((seed, 9)).permutation(pool.offered).tolist()
        self._features = pool.features
        self._costs = np.log([cost(choices) for choices in pool.choices])
        self._promise, self.reasons = promise(pool, earlier, seed)
        self._kept = self._thinned()
        self._fitted = list[_Fitted]()

    def next(self, view: View) -> Move:
        if end := ending(view, self._rungs):
            return end
        rows = [self._pool.row(trial.choices) for trial in view.trials]
        fresh = self._fresh(view, set(rows))
        if fresh is not None:
            return Start(choices=self._pool.choices[fresh], to=self._rungs[0], why="a first look")
        return self._best(view, rows)

    def _fresh(self, view: View, taken: set[int]) -> int | None:
        """A row to look at whatever the model says: the first ones, then random ones while few are known or exploring has its share."""
        if len(view.trials) >= view.budget:
            return None
        waiting = [row for row in self._first if row not in taken]
        if waiting:
            return waiting[0]
        least, blind = self._least, self._blind(taken)
        known = any(trial.curve for trial in view.trials)
        if blind is None or (
            known and len(view.trials) >= least and EXPLORE * sum(t.step for t in view.trials) <= blind * self._rungs[0]
        ):
            return None
        return int(self._order[blind])

    def _blind(self, taken: set[int]) -> int | None:
        """Where the random order was followed to; None when it is at its end."""
        return next((place for place, row in enumerate(self._order) if row not in taken), None)

    @property
    def _least(self) -> int:
        return WARM if self._promise else COLD

    def _best(self, view: View, rows: list[int]) -> Move:
        """The configuration of most expected improvement per cost."""
        trained = dict(zip(rows, view.trials, strict=True))
        paused = [row for row, trial in trained.items() if trial.idle and trial.step < view.steps]
        new = [row for row in range(self._pool.offered) if row not in trained] if len(view.trials) < view.budget else []
        asked = np.array([*paused, *new], dtype=np.int64)
        if not len(asked):
            return Stop(why="every configuration is trained")
        fitted = self._model(view)
        seen, values = self._believed(view, rows, fitted)
        end = np.ones(len(asked))
        points = Points(asked, end, self._promised(asked, end))
        mean, spread = curves.predict(fitted.model, fitted.alike, seen, values, points)
        worth = curves.log_improvement(float(values.min()), mean, spread) - self._costs[asked]
        chosen = int(asked[int(np.argmax(worth))])
        if chosen not in trained:
            return Start(choices=self._pool.choices[chosen], to=self._rungs[0], why="the model expects most of it")
        trial = trained[chosen]
        return Continue(trial=trial.number, to=following(self._rungs, trial.step), why="the model expects most of it")

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
        where, time = np.array(row, dtype=np.int64), curves.log_time(np.array(step), view.steps)
        return Points(where, time, self._promised(where, time)), scaled(np.array(loss), first)

    def _believed(self, view: View, rows: list[int], fitted: _Fitted) -> tuple[Points, Array]:
        """What is known, and for trials under way what the model expects of them, so that a round does not ask for one thing twice."""
        seen, values = self._seen(view, rows)
        busy = [(row, trial.busy) for row, trial in zip(rows, view.trials, strict=True) if trial.busy]
        if not busy:
            return seen, values
        where = np.array([row for row, _ in busy], dtype=np.int64)
        time = curves.log_time(np.array([step for _, step in busy]), view.steps)
        asked = Points(where, time, self._promised(where, time))
        mean, _ = curves.predict(fitted.model, fitted.alike, seen, values, asked)
        joined = Points(*(np.concatenate(pair) for pair in zip(seen, asked, strict=True)))
        return joined, np.concatenate([values, mean])

    def _model(self, view: View) -> _Fitted:
        """Hyper-parameters as fitted when the last of FITS was reached: a function of the looks alone, remembered."""
        features = self._features
        scored = sum(1 for trial in view.trials if trial.curve)
        marks = [count for count in FITS if count >= (COLD if self._promise is None else WARM) and count <= scored]
        start = self._promise.model if self._promise else curves.prior_model(features.shape[1])
        current = _Fitted((), start, np.zeros((0, 0)))
        for place, count in enumerate(marks):
            looks = self._looks_until(view, count)
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

    def _promised(self, rows: NDArray[np.int64], time: Array) -> Array:
        if self._promise is None:
            return np.zeros(len(rows))
        return np.asarray(self._promise.final[rows] * time**self._promise.bend)

    def _thinned(self) -> set[int]:
        kept = [self._rungs[0]]
        for rung in self._rungs:
            if rung >= 3 * kept[-1]:
                kept.append(rung)
        return set(kept)

    @staticmethod
    def _looks_until(view: View, count: int) -> tuple[tuple[int, int], ...]:
        """The looks up to the one that started the `count`-th trial."""
        started = set[int]()
        for place, (trial, _) in enumerate(view.looks):
            started.add(trial)
            if len(started) == count:
                return view.looks[: place + 1]
        return view.looks
