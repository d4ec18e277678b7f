"""Optuna's samplers and pruners as strategies: random, grid, TPE and Gaussian process; median and Hyperband.

A strategy keeps an Optuna study in memory in step with what it is shown, and asks it; the records are the truth, and a new strategy shown
the same records answers the same. Its sampler is seeded anew for each trial by its number, so a resumed study equals an unbroken one.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from autoglm_ops.tuning.moves import Continue, Move, Prune, Seen, Start, Stop, View, following
from autoglm_ops.tuning.space import Dimension, Space

STARTUP = 4
"""Trials before the model of TPE and the median of the pruner are trusted."""
GRID_LEVELS = 3
"""Points of a range on a grid; a choice has its options."""

MakeSampler = Callable[[int], BaseSampler]


class Asked:
    """A `Strategy`: one trial after the other, each trained to its end unless the pruner gives it up."""

    def __init__(
        self,
        space: Space,
        rungs: Sequence[int],
        *,
        seed: int,
        sampler: MakeSampler,
        pruner: BasePruner | None = None,
        first: Sequence[Mapping[str, Any]] = (),
        limit: int | None = None,
    ) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._rungs, self._seed, self._make, self._limit = tuple(rungs), seed, sampler, limit
        self._first = tuple(first)
        self._pending: optuna.Trial | None = None
        self._space, self._pruner = space, pruner or optuna.pruners.NopPruner()
        self._reset()

    def next(self, view: View) -> Move:
        self._follow(view)
        for trial in view.trials:
            whole = trial.step >= view.steps
            if trial.idle and (not whole or trial is view.trials[-1]):
                if trial.number > 0 and trial.curve and self._told[trial.number][0].should_prune():
                    return Prune(trial=trial.number, why="worse than the earlier ones at this step")
                if not whole:
                    return Continue(trial=trial.number, to=following(self._rungs, trial.step))
        if len(view.trials) >= (view.budget if self._limit is None else min(self._limit, view.budget)):
            return Stop(why=f"{len(view.trials)} trials are done")
        return Start(choices=self.propose(view), to=self._rungs[0])

    def propose(self, view: View) -> dict[str, Any]:
        """The next configuration."""
        self._follow(view)
        if len(view.trials) < len(self._first):
            return dict(self._first[len(view.trials)])
        if self._pending is None:
            self._close(view, len(view.trials))
            self._study.sampler = self._make(self._seed + len(view.trials))
            self._pending = self._ask()
            self._study.sampler = optuna.samplers.RandomSampler(seed=self._seed)
        return dict(self._pending.params)

    def _reset(self) -> None:
        self._study = optuna.create_study(study_name="study", direction="minimize", pruner=self._pruner)
        self._study.sampler = optuna.samplers.RandomSampler(seed=self._seed)
        self._told = list[tuple[optuna.Trial, Seen]]()
        self._closed = set[int]()
        self._pending = None

    def _follow(self, view: View) -> None:
        """Bring the study in memory to where the records are."""
        if any(mine.choices != shown.choices for (_, mine), shown in zip(self._told, view.trials, strict=False)):
            self._reset()
        for shown in view.trials:
            if shown.number == len(self._told):
                self._told.append((self._started(shown), Seen(number=shown.number, choices=shown.choices)))
            trial, known = self._told[shown.number]
            if known != shown and shown.number not in self._closed:  # what is closed there can take no more scores
                for step, loss in shown.curve[len(known.curve) :]:
                    trial.report(min(loss, 1e9), step)
            self._told[shown.number] = (trial, shown)
        self._close(view, len(view.trials) - 1)  # the last one may still be given up

    def _close(self, view: View, count: int) -> None:
        """Close what has ended: given up, or, of the first `count` trials, trained whole."""
        for trial, seen in self._told:
            if seen.closed or (seen.number < count and seen.step >= view.steps):
                self._finish(trial, seen)

    def _finish(self, trial: optuna.Trial, seen: Seen) -> None:
        """Close a trial that has ended. One that is paused stays open there: its later scores count, too."""
        if seen.number in self._closed:
            return
        self._closed.add(seen.number)
        if seen.state == "open":
            self._study.tell(trial, min(seen.loss, 1e9))
        else:
            self._study.tell(trial, state=TrialState.PRUNED if seen.state == "pruned" else TrialState.FAIL)

    def _started(self, shown: Seen) -> optuna.Trial:
        pending, self._pending = self._pending, None
        if pending is not None:
            if pending.params == shown.choices:
                return pending
            self._study.tell(pending, state=TrialState.FAIL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # present settings may lie outside the space, and are tried all the same
            self._study.enqueue_trial(shown.choices)
            return self._ask()

    def _ask(self) -> optuna.Trial:
        trial = self._study.ask()
        suggest(trial, self._space)
        return trial


def random(space: Space, rungs: Sequence[int], *, seed: int, **more: Any) -> Asked:
    """Every trial drawn at random and trained whole."""
    return Asked(space, rungs[-1:], seed=seed, sampler=lambda number: optuna.samplers.RandomSampler(seed=number), **more)


def grid(space: Space, rungs: Sequence[int], *, seed: int, **more: Any) -> Asked:
    """Every point of a grid, in random order, each trained whole. (Optuna's own sampler forgets which points a killed study had tried.)"""
    points = grid_points(space)
    active = [_active(space, dict(zip(points, values, strict=True))) for values in itertools.product(*points.values())]
    first = list(more.pop("first", ()))
    distinct = [one for place, one in enumerate(active) if one not in active[:place] and one not in first]
    np.random.default_rng(seed).shuffle(distinct)
    chosen = (*first, *distinct)
    sampler = optuna.samplers.RandomSampler
    return Asked(
        space, rungs[-1:], seed=seed, sampler=lambda number: sampler(seed=number), first=chosen, limit=len(chosen), **more
    )


def tpe(space: Space, rungs: Sequence[int], *, seed: int, startup: int = STARTUP, **more: Any) -> Asked:
    """TPE with the median pruner: Optuna's default."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=0)
    sampler = optuna.samplers.TPESampler
    return Asked(
        space, rungs, seed=seed, sampler=lambda number: sampler(seed=number, n_startup_trials=startup), pruner=pruner, **more
    )


def hyperband(space: Space, rungs: Sequence[int], *, seed: int, startup: int = STARTUP, **more: Any) -> Asked:
    """TPE with the Hyperband pruner."""
    pruner = optuna.pruners.HyperbandPruner(min_resource=rungs[0], max_resource=rungs[-1], reduction_factor=3)
    sampler = optuna.samplers.TPESampler
    return Asked(
        space, rungs, seed=seed, sampler=lambda number: sampler(seed=number, n_startup_trials=startup), pruner=pruner, **more
    )


def gp(space: Space, rungs: Sequence[int], *, seed: int, startup: int = STARTUP, **more: Any) -> Asked:
    """Optuna's Gaussian-process sampler with the median pruner."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=0)
    sampler = optuna.samplers.GPSampler
    return Asked(
        space, rungs, seed=seed, sampler=lambda number: sampler(seed=number, n_startup_trials=startup), pruner=pruner, **more
    )


def grid_points(space: Space, levels: int = GRID_LEVELS) -> dict[str, list[Any]]:
    """The values of each dimension on a grid: ends and evenly between for a range, all options for a choice."""
    points: dict[str, list[Any]] = {}
    for dimension in space.ordered:
        if dimension.kind == "choice":
            points[dimension.key] = list(dimension.options)
        else:
            places = [place / (levels - 1) for place in range(levels)]
            points[dimension.key] = sorted({dimension.value(place) for place in places})
    return points


def _active(space: Space, choices: Mapping[str, Any]) -> dict[str, Any]:
    """Without what a condition rules out."""
    return {dimension.key: choices[dimension.key] for dimension in space.ordered if dimension.active(choices)}


def suggest(trial: optuna.Trial, space: Space) -> None:
    """Let the trial's sampler choose a value for every dimension that counts."""
    for dimension in space.ordered:
        if dimension.active(trial.params):
            _suggest(trial, dimension)


def _suggest(trial: optuna.Trial, dimension: Dimension) -> None:
    key, low, high = dimension.key, dimension.low, dimension.high
    if dimension.kind == "choice":
        trial.suggest_categorical(key, dimension.options)
    elif dimension.kind == "int":
        trial.suggest_int(key, int(low), int(high), step=dimension.step)
    else:
        trial.suggest_float(key, low, high, log=dimension.kind == "loguniform")
