"""Signals to search-space patches: bounded, recorded, reversible. Pure; `today` is an argument.

Nothing here decides to retrain: it decides only what the next study may look at. A lever that is not moved says why, by a word:
no-signal, future, no-lever, no-bound, seen, undone, cooldown, taken, hysteresis, bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import date, timedelta
from typing import Any

from autoglm_ops.contracts.feedback import PatchSet, SearchSpacePatch, Signal
from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.feedback.history import UNDO
from autoglm_ops.feedback.levers import (
    SPACE,
    WORDS,
    Applied,
    Levers,
    Limits,
    Refusal,
    apply,
    ends,
    grid_of,
    is_whole,
    moved,
    next_of,
    on_grid,
    step,
)
from autoglm_ops.feedback.rules import RULES, Rule

BOUNDS: dict[str, Limits] = {
    "train.learning_rate": (1e-6, 0.1),
    "train.weight_decay": (1e-6, 10.0),  # of a small model: the space begins at 0.5
    "train.epochs": (0.1, 30.0),
    "model.dropout": (0.0, 0.6),
    "model.hidden_size": (16, 1024),
    "model.layers": (1, 24),
    "model.heads": (1, 64),
    "train.token_dropout": (0.0, 0.6),
    "tokenize.max_length": (32, 8192),
    "serving.batch_wait_ms": (0.1, 100.0),
    "prepare.half_life_days": (1, 365),  # and of what auto may find: evaluation.forgetting
    "data.window_days": (7, 3650),
}
"""No patch ever leaves these. A key without bounds is never patched, unless it is one of WORDS."""


class FeedbackPolicy(Record):
    """How far and how often feedback may move a lever (threats F25).

    max_step: largest relative change of one number by one patch. max_total: largest factor between a number and its value in
    params.yaml, over all patches in force. grains: key -> the number whose multiples alone it may take. notches: key -> the only values it may take; a
    step goes to the next of them, however far that is.
    """

    max_step: float
    cooldown_days: int
    expire_days: int
    max_total: float = 2.0
    bounds: dict[str, Limits] = BOUNDS
    grains: dict[str, int] = {}
    notches: dict[str, tuple[int, ...]] = {}


class CompiledPatches(Record):
    """The patches to append to the history, and every lever that was considered and left alone."""

    patches: tuple[SearchSpacePatch, ...] = ()
    refused: tuple[Refusal, ...] = ()


def compile_patches(
    signals: Sequence[Signal],
    space: Levers,
    active: PatchSet,
    policy: FeedbackPolicy,
    today: date,
    rules: Iterable[Rule] = RULES,
) -> CompiledPatches:
    """Patches for what fired. `space` is params.yaml's (`levers.levers`), before patches; `active` are those in force.

    The same signals give no second patch, whatever the cool-down.
    """
    ahead = [signal for signal in signals if signal.window[1] > today.isoformat()]
    said: dict[str, Signal] = {signal.name: signal for signal in signals if signal not in ahead}
    answers: list[SearchSpacePatch | Refusal] = [
        Refusal(key=signal.name, word="no-signal", reason=signal.reason) for signal in signals if not signal.fired
    ]
    answers += [
        Refusal(key=one.name, word="future", reason=f"its window ends on {one.window[1]}, after {today}") for one in ahead
    ]
    present, taken = apply(space, active, today), set[str]()
    for rule in rules:
        if rule.holds(said) and rule.concerns(present.levers):
            case = _Case(rule, {name: said[name] for name in rule.signals}, space, present, active)
            answer = case.taken() if case.key in taken else case.answer(policy, today)
            answers.append(answer)
            taken |= {case.key} if isinstance(answer, SearchSpacePatch) else set()
    return CompiledPatches(
        patches=tuple(answer for answer in answers if isinstance(answer, SearchSpacePatch)),
        refused=tuple(answer for answer in answers if isinstance(answer, Refusal)),
    )


class _Case:
    """One rule whose signals fired, and the lever it would move."""

    def __init__(self, rule: Rule, signals: Mapping[str, Signal], base: Levers, present: Applied, active: PatchSet) -> None:
        searched = f"{SPACE}{rule.key}"
        self.rule = rule
        self.key = searched if searched in present.levers else rule.key
        self.words = WORDS.get(self.key, ()) if rule.set is not None else ()
        self.base, self.now = base.get(self.key), present.levers.get(self.key)
        self.signals = {name: signal.model_dump(mode="json") for name, signal in sorted(signals.items())}
        self.seen = digest_of(self.signals)
        self.earlier = [patch for patch in present.standing if patch.key == self.key]
        self.undone = any(patch.signal == UNDO for patch in active.patches if patch.key == self.key)

    def taken(self) -> Refusal:
        return self._refuse("taken", "an earlier rule moves it in this very round")

    def answer(self, policy: FeedbackPolicy, today: date) -> SearchSpacePatch | Refusal:
        """The patch, or why there is none."""
        blocked = self._blocked(policy, today)
        if blocked is not None:
            return blocked
        changes = self._changes(policy)
        if not changes:
            there = f"{self.now} already" if self.words else f"{self.now}, which has no room left towards the rule's target"
            return self._refuse("bound", f"it is {there}")
        directions = {end: self._direction(self._ends()[end], value) for end, value in changes.items()}
        if any(patch.evidence.get("moved", {}).get(end) == -sign for patch in self.earlier for end, sign in directions.items()):
            return self._refuse("hysteresis", "a patch in force moved it the other way; it must expire first")
        return SearchSpacePatch(
            key=self.key,
            old=self.now,
            new=moved(self.now, changes),
            signal="+".join(self.signals),
            reason=self.rule.reason,
            evidence={"signals": self.signals, "seen": self.seen, "moved": directions, "base": self.base},
            created=today.isoformat(),
            expires=(today + timedelta(days=policy.expire_days)).isoformat(),
        )

    def _blocked(self, policy: FeedbackPolicy, today: date) -> Refusal | None:
        if not self._ends():
            wanted = " or ".join(map(str, self.words)) or "a number"
            return self._refuse(
                "no-lever", f"it is {'not set' if self.now is None else self.now}, not {wanted}, and not searched"
            )
        if self.rule.key not in policy.bounds and not self.words:
            return self._refuse("no-bound", "it has no hard bounds, so it is never patched")
        if any(patch.evidence.get("seen") == self.seen for patch in self.earlier):
            return self._refuse("seen", "a patch in force stands on this very evidence")
        if self.undone:  # whatever params.yaml has now: a person said no to the lever
            return self._refuse("undone", "a person undid a patch of it; until that expires it is left alone")
        if self.earlier:
            ready = date.fromisoformat(self.earlier[-1].created) + timedelta(days=policy.cooldown_days)
            if today < ready:
                return self._refuse("cooldown", f"patched on {self.earlier[-1].created}; left alone until {ready}")
        return None

    def _ends(self) -> dict[str, Any]:
        """What of the lever can move: numbers as `ends` names them, or its word."""
        if self.words:
            return {"value": self.now} if self.now in self.words else {}
        return ends(self.now)

    def _changes(self, policy: FeedbackPolicy) -> dict[str, Any]:
        """New values of the ends that can move; a range that would close is left as it is."""
        if self.words:
            return {} if self.rule.set == self.now else {"value": self.rule.set}
        current, origin = ends(self.now), ends(self.base)
        wanted = ("value",) if "value" in current else self.rule.ends
        found = {end: self._moved_end(current[end], origin[end], policy) for end in wanted}
        merged = current | found
        if "value" not in merged and merged["low"] >= merged["high"]:
            return {}
        return {end: value for end, value in found.items() if value != current[end]}

    def _direction(self, old: Any, new: Any) -> int:
        """What later patches must not turn round. Switching a lever on is a move the way its rule goes on."""
        if self.words:
            old, new = map(self.words.index, (old, new))
        upwards = self.rule.upwards if old == 0 and self.rule.start is not None else new > old
        return 1 if upwards else -1

    def _moved_end(self, value: float, origin: float, policy: FeedbackPolicy) -> float:
        low, high = policy.bounds[self.rule.key]
        start, notches = self.rule.start, policy.notches.get(self.rule.key)
        grid = grid_of(self.now, policy.grains.get(self.rule.key, int(is_whole(self.now))))
        if grid is None:
            return value
        if value == 0 and start is not None:
            begin = min(max(start, low), high)
            return on_grid(begin, grid, upwards=True) if isinstance(self.now, Mapping) else begin
        centre = origin or start or 0.0
        around = sorted((centre / policy.max_total, centre * policy.max_total))
        limits = (max(low, around[0]), min(high, around[1]))
        if notches is not None:
            there = [notch for notch in notches if on_grid(notch, grid, upwards=True) == notch]
            return next_of(there, value, self.rule.target(value), limits)
        return step(value, self.rule.target(value), limits, policy.max_step, grid)

    def _refuse(self, word: str, reason: str) -> Refusal:
        return Refusal(key=self.key, word=word, reason=reason)
