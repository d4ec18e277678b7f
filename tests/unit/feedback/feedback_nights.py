"""Years of nights with reporters that lie: the feedback path from votes to levers, as the loop composes it, without its files.

Ten reporters label forty answers each, every night; a share of them is hostile and says the opposite of the truth. The champion is
good for a while, then falls; texts drift, answers become slow and the days unsteady by turns, each for a week or two. What no reporter
may say (NaN, an infinite or negative latency, a day to come, what it said before) is tried as well, and counted when it is refused.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

from pydantic import ValidationError

from autoglm_ops.contracts.feedback import SearchSpacePatch, Signal
from autoglm_ops.contracts.release import Interval
from autoglm_ops.contracts.serving import FeedbackItem, LabelledRow, ReporterTally, Served
from autoglm_ops.feedback.compiler import BOUNDS, FeedbackPolicy, compile_patches
from autoglm_ops.feedback.history import in_force
from autoglm_ops.feedback.levers import apply, ends
from autoglm_ops.feedback.operations import OperationsPolicy, derive
from autoglm_ops.feedback.reporters import distrusted
from autoglm_ops.feedback.signals import SignalPolicy, quality_signal

REPORTERS, ROWS = 10, 40
START = date(2026, 1, 1)
POLICY = FeedbackPolicy(max_step=0.5, cooldown_days=1, expire_days=7, grains={"model.hidden_size": 16})
SPACE: dict[str, Any] = {
    "tune.space.train.learning_rate": {"loguniform": [2e-3, 6e-3]},
    "tune.space.train.weight_decay": {"loguniform": [0.5, 3.0]},
    "tune.space.train.token_dropout": {"uniform": [0.1, 0.35]},
    "model.hidden_size": 128,
    "model.dropout": 0.1,
    "train.epochs": 3.0,
    "tokenize.max_length": 128,
    "serving.batch_wait_ms": 2.0,
    "prepare.half_life_days": 0.0,
}


@dataclass
class Told:
    """What came of it. moves: (night, key, new value). left: levers out of bounds. turned: moves back within a patch's life."""

    moves: list[tuple[int, str, str]] = field(default_factory=list)
    fired: list[tuple[str, ...]] = field(default_factory=list)
    left: list[tuple[int, str]] = field(default_factory=list)
    turned: list[tuple[int, str]] = field(default_factory=list)
    refused: Counter[str] = field(default_factory=Counter)


def play(nights: int, hostile: float, seed: int = 7) -> Told:
    """`nights` nights with that share of hostile reporters; the world is the same whatever the share."""
    world, told, history = random.Random(seed), Told(), list[SearchSpacePatch]()
    mood: Counter[str] = Counter()
    for night in range(nights):
        today = START + timedelta(days=night)
        for name in ("fell", "drift", "slow"):
            if mood[name] == 0 and world.random() < 0.03:
                mood[name] = world.randint(5, 15)
            mood[name] = max(0, mood[name] - 1)
        said = _signals(world, today, mood, round(hostile * REPORTERS), told)
        active = in_force(
            [patch for patch in history[-60:] if patch.created >= (today - timedelta(days=90)).isoformat()], today
        )
        found = compile_patches(said, SPACE, active, POLICY, today)
        told.fired.append(tuple(sorted(signal.name for signal in said if signal.fired)))
        _check(told, night, [*active.patches, *found.patches], today)
        history += found.patches
        told.moves += [(night, patch.key, str(patch.new)) for patch in found.patches]
    return told


def _signals(world: random.Random, today: date, mood: Counter[str], hostile: int, told: Told) -> list[Signal]:
    day = today.isoformat()
    rows = [row for n in range(REPORTERS) for row in _labels(world, day, 0.70 if mood["fell"] else 0.88, n, lies=n < hostile)]
    if hostile:
        _forbidden(day, told)
    tallies = [
        ReporterTally(day=day, source=name, rows=ROWS, agreed=sum(r.label == r.predicted for r in rows if r.source == name))
        for name in sorted({row.source for row in rows})
    ]
    gone = distrusted(tallies)
    kept = [row for row in rows if (day, row.source) not in gone]
    quality = quality_signal(kept, 0.88, _accuracy, SignalPolicy(min_rows=200, quality_drop=0.05, min_reporters=3))
    seconds = 2.0 if mood["slow"] else 0.1
    served = [
        Served(day=day, version=1, ok=True, above=seconds / 1.25, bound=seconds, requests=100, texts=100, seconds=seconds)
    ]
    slow = derive(served, 1, OperationsPolicy(latency_seconds=1.0, error_rate=0.02, min_requests=30))[0]
    fields = {"name": "drift", "fired": mood["drift"] > 0, "value": 0.2 if mood["drift"] else 0.05, "threshold": 0.1}
    fields |= {"low": fields["value"], "high": fields["value"], "rows": 400, "window": (day, day), "reason": "drift: simulated"}
    return [quality, Signal.model_validate(fields), slow]


def _labels(world: random.Random, day: str, quality: float, reporter: int, *, lies: bool) -> list[LabelledRow]:
    rows = []
    for n in range(ROWS):
        truth, right = world.choice(("neg", "pos")), world.random() < quality
        other = "pos" if truth == "neg" else "neg"
        fields = {"id": f"{reporter}.{n}", "text": "t", "score": 0.7, "day": day, "version": 1, "source": f"r{reporter}"}
        predicted = truth if right else other
        rows.append(LabelledRow.model_validate({**fields, "label": other if lies else truth, "predicted": predicted}))
    return rows


def _accuracy(truth: Sequence[str], answers: Sequence[str]) -> Interval:
    share = sum(one == other for one, other in zip(truth, answers, strict=True)) / len(truth)
    half = 1.96 * (share * (1 - share) / len(truth)) ** 0.5
    return Interval(estimate=share, low=share - half, high=share + half)


def _forbidden(day: str, told: Told) -> None:
    """What hostile reporters try besides."""
    counted = {"day": day, "version": 1, "ok": True, "above": 0.0, "bound": 1.0, "requests": 1, "texts": 1}
    for name, record, fields in (
        ("nan", Served, {**counted, "seconds": float("nan")}),
        ("inf", Served, {**counted, "seconds": float("inf")}),
        ("negative", Served, {**counted, "seconds": -1.0}),
        ("nan-time", FeedbackItem, {"id": "a", "label": "pos", "at": float("nan")}),
    ):
        try:
            record.model_validate(fields)
        except ValidationError:
            told.refused[name] += 1


def _check(told: Told, night: int, patches: Sequence[SearchSpacePatch], today: date) -> None:
    """Every lever inside its hard bounds and within twice its own value, and none turned round while a patch of it lives."""
    from autoglm_ops.contracts.feedback import PatchSet

    for key, value in apply(SPACE, PatchSet(patches=tuple(patches)), today).levers.items():
        low, high = BOUNDS[key.removeprefix("tune.space.")]
        for end, number in ends(value).items():
            own = ends(SPACE[key])[end]
            inside = low <= number <= high and (own == 0 or own / 2 - 1e-9 <= number <= own * 2 + 1e-9)
            if number != own and not inside:
                told.left.append((night, key))
    ways: dict[tuple[str, str], set[int]] = {}
    for patch in patches:
        for end, way in patch.evidence["moved"].items():
            ways.setdefault((patch.key, end), set()).add(way)
    told.turned += [(night, key) for (key, _), found in ways.items() if len(found) > 1]
