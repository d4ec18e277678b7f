"""A round of a study: the moves that are trained at once, asked of a strategy one after the other, each knowing of those before it.

Nothing here looks at a clock, a process or an order of arrival: the same study gives the same rounds, whether their trials are trained one
after the other in this process or as tasks of their own anywhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from autoglm_ops.contracts.record import Record
from autoglm_ops.tuning.moves import Continue, Prune, Start, Stop, Strategy, View


class Look(Record):
    """Train trial `number`, whose settings are `choices`, from step `since` on to step `to`, and say its score there."""

    number: int
    choices: dict[str, Any]
    since: int
    to: int


class Round(NamedTuple):
    """`looks` to take, in this order; `pruned` trials to give up; `why`: of the end, when there is nothing to look at."""

    looks: tuple[Look, ...] = ()
    pruned: tuple[int, ...] = ()
    why: str = ""


def ask(strategy: Strategy, view: View, size: int) -> Round:
    """The next round of at most `size` looks. A round is shorter when the strategy would rather wait for what is under way."""
    looks, pruned = list[Look](), list[int]()
    while len(looks) < size:
        move = strategy.next(view)
        if isinstance(move, Stop):
            return Round(tuple(looks), tuple(pruned), "" if looks else move.why)
        if isinstance(move, Start | Continue):
            if isinstance(move, Continue) and not view.trials[move.trial].idle:
                break
            looks.append(_look(move, view))
        elif isinstance(move, Prune):
            if not view.trials[move.trial].idle:
                break
            pruned.append(move.trial)
        view = view.after(move)
    return Round(tuple(looks), tuple(pruned))


def _look(move: Start | Continue, view: View) -> Look:
    if isinstance(move, Start):
        return Look(number=len(view.trials), choices=move.choices, since=0, to=move.to)
    trial = view.trials[move.trial]
    return Look(number=trial.number, choices=trial.choices, since=trial.step, to=move.to)
