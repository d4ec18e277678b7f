"""Successive halving with continuation: the best third of each rung goes on from where it was paused (Li et al. 2020, ASHA)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from autoglm_ops.tuning.moves import Continue, Move, Start, Stop, View, ending, following
from autoglm_ops.tuning.samplers import Asked, random
from autoglm_ops.tuning.space import Space

FACTOR = 3


class Halving:
    """A `Strategy`. New configurations come from `proposer`; a paused one is promoted as soon as it is among the best of its rung."""

    def __init__(self, rungs: Sequence[int], proposer: Asked) -> None:
        self._rungs, self._proposer = tuple(rungs), proposer

    def next(self, view: View) -> Move:
        if end := ending(view, self._rungs):
            return end
        for rung in reversed(self._rungs[:-1]):
            reached = sorted((trial.at(rung), trial.number) for trial in view.trials if trial.step >= rung)
            for _, number in reached[: len(reached) // FACTOR]:
                trial = view.trials[number]
                if trial.step == rung and trial.idle:
                    return Continue(trial=number, to=following(self._rungs, rung), why=f"among the best third at step {rung}")
        if len(view.trials) < view.budget:
            return Start(choices=self._proposer.propose(view), to=self._rungs[0])
        return self._rest(view)

    def _rest(self, view: View) -> Move:
        """No more may be started: the best of those that are paused goes on, while steps are left."""
        paused = [trial for trial in view.trials if trial.idle and trial.step < view.steps]
        best = min(paused, key=lambda trial: (-trial.step, trial.loss, trial.number), default=None)
        if best is None:
            return Stop(why="nothing is left to continue")
        return Continue(trial=best.number, to=following(self._rungs, best.step), why="the furthest that is left")


def halving(space: Space, rungs: Sequence[int], *, seed: int, **more: Any) -> Halving:
    """Random configurations, halved."""
    return Halving(rungs, random(space, rungs, seed=seed, **more))
