"""Model after model judged worse than the one before: the model's attention heads change in the next run's plan (spec T5). Pure.

Signals speak of production; this one speaks of the runs' own evaluations, so it needs no label that came back.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from autoglm_ops.contracts.feedback import Signal
from autoglm_ops.contracts.record import Record
from autoglm_ops.feedback.rules import Rule

KEY = "model.heads"
ENOUGH = 64
"""Numbers a head has in Vaswani et al. 2017. Heads with fewer may be too narrow to tell rows of this length apart (Bhojanapalli et al.
2020, "Low-Rank Bottleneck in Multi-head Attention Models"); with so many, more heads may look at more places at once."""


class Judged(Record):
    """What a run's evaluation said of its candidate: `value` of `metric` on `rows` rows, for the data until `day`. More is better."""

    day: str
    run: str
    metric: str
    value: float
    rows: int


def decline_signal(judged: Iterable[Judged], needed: int) -> Signal:
    """Fires when each of the last `needed` runs, day by day, was judged worse than the run before it.

    A day counts once, by its last run. Runs judged by another metric than the newest say nothing. `value` is how many declines there are
    in a row; needed >= 1.
    """
    days = {one.day: one for one in sorted(judged, key=lambda one: one.day)}
    newest = list(days.values())[-1:]
    kept = [one for one in days.values() if one.metric == newest[0].metric]
    count = declines([one.value for one in kept])
    said = " > ".join(f"{one.value:.3f}" for one in kept[-count - 1 :])
    if len(kept) <= needed:
        word, found = "too-few-runs", f"{len(kept)} were judged, {needed + 1} are needed"
    elif count >= needed:
        word, found = "declining", f"{kept[-1].metric} {said}: {count} declines in a row"
    else:
        word, found = "holding", f"{count} declines in a row, {needed} are needed"
    return Signal(
        name="decline",
        fired=word == "declining",
        silent=word == "too-few-runs",
        value=count,
        threshold=needed,
        low=count,
        high=count,
        rows=sum(one.rows for one in kept[-count - 1 :]),
        window=(kept[-count - 1].day, kept[-1].day) if kept else ("", ""),
        reason=f"{word}: {found}",
    )


def declines(values: Sequence[float]) -> int:
    """How many of the last values are each below the one before."""
    count = 0
    while count + 1 < len(values) and values[-count - 1] < values[-count - 2]:
        count += 1
    return count


def heads_rule(hidden: int, heads: int) -> Rule:
    """Half as many heads where they are narrow, twice as many where they are not. `hidden`, `heads`: params.yaml's."""
    narrow = hidden // heads < ENOUGH
    return Rule(
        when=("decline",),
        key=KEY,
        multiply=0.5 if narrow else 2.0,
        ends=("low",) if narrow else ("high",),
        reason=(
            f"run after run was judged worse, and a head has only {hidden // heads} numbers: fewer and wider heads"
            if narrow
            else f"run after run was judged worse, and a head has {hidden // heads} numbers: more heads"
        ),
    )


def heads_for(hidden: Iterable[float], heads: int) -> tuple[int, ...]:
    """Half, equal and twice `heads`, of which every size in `hidden` is a multiple as a GLM needs it (rotary pairs within half of a head)."""
    common = math.gcd(*(int(size) for size in hidden))
    return tuple(count for count in (heads // 2, heads, 2 * heads) if count and common % (4 * count) == 0)
