"""What a strategy sees and what it answers: records in, a record out. The same strategies drive tables and real training.

    view = View(steps=50, trials=(), budget=8)
    move = strategy.next(view)          # Start(choices, to) | Continue(trial, to) | Prune(trial, why) | Stop(why)

A trial is paused whenever it is not being trained: to continue one costs its new steps only (freeze-thaw).
"""

from __future__ import annotations

import math
from typing import Any, Literal, Protocol

from autoglm_ops.contracts.record import Record

SIZE = 512
"""Configurations of a pool."""
PAUSING = frozenset({"halving", "tunemaster", "hyperband"})
"""Strategies that look early: their rungs grow by a factor. The others score a trial at even distances."""


class Seen(Record):
    """One trial so far. `curve`: (step, loss) after each evaluation, less is better. An open one is being trained, paused or trained to
    its end; the others are given up, or could not be trained. `busy`: the step it is being trained to in this round, 0 for none."""

    model_config = {**Record.model_config, "allow_inf_nan": True}  # a trial that diverged has an infinite loss

    number: int
    choices: dict[str, Any]
    curve: tuple[tuple[int, float], ...] = ()
    state: Literal["open", "pruned", "failed"] = "open"
    busy: int = 0

    @property
    def closed(self) -> bool:
        return self.state != "open"

    @property
    def idle(self) -> bool:
        """Whether it may be moved on: not given up, and not under way already."""
        return not self.closed and not self.busy

    @property
    def step(self) -> int:
        return self.curve[-1][0] if self.curve else 0

    @property
    def loss(self) -> float:
        """The best so far."""
        return min((loss for _, loss in self.curve), default=math.inf)

    def at(self, step: int) -> float:
        """The last loss known at `step` or before it."""
        return next((loss for place, loss in reversed(self.curve) if place <= step), math.inf)


class View(Record):
    """The study so far. `steps`: a whole training. `budget`: trials that may be started, `left`: steps that may still be trained, None
    for no bound. `trials` lie in the order of their start, numbered from 0; `looks` are (trial, step) in the order they were taken."""

    steps: int
    budget: int
    left: int | None = None
    trials: tuple[Seen, ...] = ()
    looks: tuple[tuple[int, int], ...] = ()

    def before(self, looks: int) -> View:
        """The study as it was after its first `looks` looks."""
        kept = self.looks[:looks]
        last = dict(kept)
        trials = tuple(
            trial.model_copy(update={"curve": tuple(point for point in trial.curve if point[0] <= last[trial.number])})
            for trial in self.trials
            if trial.number in last
        )
        return self.model_copy(update={"trials": trials, "looks": kept})

    def after(self, move: Start | Continue | Prune) -> View:
        """The study while `move` is under way: its trial busy, its steps spent, its score not known; a pruned one is closed."""
        trials = list(self.trials)
        if isinstance(move, Prune):
            trials[move.trial] = trials[move.trial].model_copy(update={"state": "pruned"})
            return self.model_copy(update={"trials": tuple(trials)})
        if isinstance(move, Start):
            trials.append(Seen(number=len(trials), choices=move.choices))
        number = len(trials) - 1 if isinstance(move, Start) else move.trial
        left = None if self.left is None else self.left - (move.to - trials[number].step)
        trials[number] = trials[number].model_copy(update={"busy": move.to})
        return self.model_copy(update={"trials": tuple(trials), "left": left})


class Start(Record):
    choices: dict[str, Any]
    to: int
    why: str = ""


class Continue(Record):
    trial: int
    to: int
    why: str = ""


class Prune(Record):
    trial: int
    why: str


class Stop(Record):
    why: str


Move = Start | Continue | Prune | Stop


class Strategy(Protocol):
    """A pure decision: equal views give equal moves.

    Trials that are `busy` are under way in the present round. A strategy that would rather know their scores first answers with one of
    them, or with Stop: the round then goes as it is.
    """

    def next(self, view: View) -> Move: ...


def ladder(steps: int, looks: int, factor: float = 1.0) -> tuple[int, ...]:
    """The steps after which a trial may be scored: even for factor 1, else each `factor` times the one before; the last is `steps`."""
    if factor <= 1:
        return tuple(sorted({round(steps * (place + 1) / looks) for place in range(looks)} - {0}))
    return tuple(sorted({max(1, math.ceil(steps / factor ** (looks - 1 - place))) for place in range(looks)}))


def following(rungs: tuple[int, ...], step: int) -> int:
    """The first rung after `step`."""
    return next(rung for rung in rungs if rung > step)


def ending(view: View, rungs: tuple[int, ...]) -> Move | None:
    """How a bounded study ends: with its leader's rest, while the steps last, and then a stop. None while there is more to spend."""
    if view.left is None:
        return None
    open_trials = [trial for trial in view.trials if not trial.closed]
    leader = min(open_trials, key=lambda trial: (trial.loss, trial.number), default=None)
    rest = view.steps - leader.step if leader else rungs[0]
    widest = max(after - before for before, after in zip((0, *rungs), rungs, strict=False))
    if view.left >= rest + widest:
        return None
    if leader and rest and view.left >= rest:
        return Continue(trial=leader.number, to=following(rungs, leader.step), why="the leader's rest, while the steps last")
    return Stop(why=f"{view.left} steps are left, and the leader is trained" if not rest else f"{view.left} steps are left")
