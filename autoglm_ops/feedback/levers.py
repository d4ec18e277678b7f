"""What a patch may move: entries of the search space and fixed settings, by dotted key, and how they move. Pure.

A lever's value is a number, one of the words that WORDS lists, or one entry of `tune.space`: {loguniform|uniform|int|adaptive:
[low, high]} or {choice: [...]}.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

from autoglm_ops.contracts.feedback import PatchSet, SearchSpacePatch
from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.contracts.space import parts_of
from autoglm_ops.errors import UsageError

SPACE = "tune.space."
Levers = Mapping[str, Any]
Limits = tuple[float, float]
Grid = tuple[int, int]
"""The numbers a lever may take: one of them, and how far apart they lie; 0 apart is any number."""


class Refusal(Record):
    """A patch that was not made or not applied: `word` can be counted, `reason` can be read."""

    key: str
    word: str
    reason: str


class Applied(Record):
    """Levers with patches applied, oldest first in `standing`, and the patches that did not fit."""

    levers: dict[str, Any]
    standing: tuple[SearchSpacePatch, ...] = ()
    skipped: tuple[Refusal, ...] = ()


WORDS: dict[str, tuple[str | int, ...]] = {"train.quantization": ("none", "int8"), "prepare.half_life_days": (0, "auto")}
"""Settings that may be patched by being set to a word: no patch sets another one, nor one that a user set to something else. Their order
is what a way back is told by."""

SECTIONS = ("model", "train", "tokenize", "prepare", "data", "serving")


def levers(settings: Mapping[str, Any], own: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The levers of a settings tree: every entry of tune.space, every number directly below SECTIONS, and WORDS.

    own: what a null of `model` stands for, the configuration's own values.
    """
    found = {f"{SPACE}{key}": entry for key, entry in settings.get("tune", {}).get("space", {}).items()}
    for section in SECTIONS:
        values = dict(settings.get(section, {}))
        if section == "model":
            values |= {key: value for key, value in (own or {}).items() if values.get(key, 0) is None}
        found |= {
            f"{section}.{key}": value for key, value in values.items() if _is_number(value) or f"{section}.{key}" in WORDS
        }
    return found


def apply(space: Levers, patches: PatchSet, today: date | None = None) -> Applied:
    """`space` with `patches` replayed, oldest first. Without `today` the set counts as in force.

    The patches of a chain end with the newest of them ("expired"). One that was made for another value than the key has now, or has in
    params.yaml, is skipped ("stale"): the user changed params.yaml since, and the user wins. Those made after that change stand.
    """
    current, standing, skipped = dict(space), list[SearchSpacePatch](), list[Refusal]()
    newest = {chain_of(patch): patch for patch in patches.patches}
    for patch in patches.patches:
        last, why = newest[chain_of(patch)], _stale(patch, space, current)
        if today is not None and date.fromisoformat(last.expires) < today:
            skipped.append(Refusal(key=patch.key, word="expired", reason=f"ended {last.expires}"))
        elif why:
            skipped.append(Refusal(key=patch.key, word="stale", reason=why))
        else:
            current[patch.key] = patch.new
            standing.append(patch)
    return Applied(levers=current, standing=tuple(standing), skipped=tuple(skipped))


def chain_of(patch: SearchSpacePatch) -> tuple[str, str]:
    """The key, and which of its values in params.yaml the patch was made for: patches that agree in both build on one another."""
    return patch.key, digest_of(patch.evidence.get("base"))


def _stale(patch: SearchSpacePatch, space: Levers, current: Levers) -> str:
    """Why a patch does not fit, "" when it does. The base is asked too: a user may write into params.yaml what a patch had made of it."""
    base = space.get(patch.key)
    if not same(base, patch.evidence.get("base", base)):
        return f"made for {patch.evidence['base']}, but {patch.key} is {base}"
    now = current.get(patch.key)
    return "" if same(now, patch.old) else f"made for {patch.old}, but {patch.key} is {now}"


def undo(space: Levers, patch: SearchSpacePatch) -> dict[str, Any]:
    """`space` as it was before `patch`. Raises UsageError when its key does not hold the patch's new value."""
    if not same(space.get(patch.key), patch.new):
        raise UsageError(
            f"{patch.key} is {space.get(patch.key)}, not {patch.new} as the patch left it; undo newer patches first"
        )
    return {**space, patch.key: patch.old}


def same(one: Any, other: Any) -> bool:
    """Equal as JSON: a list is a tuple, 64 is 64.0."""
    return bool(json.loads(json.dumps(one)) == json.loads(json.dumps(other)))


def ends(value: Any) -> dict[str, float]:
    """The numbers of a lever that can move: {"value"} of a number, {"low", "high"} of a range or of a choice of numbers.

    Empty when there are none (a choice of words, a missing lever).
    """
    if _is_number(value):
        return {"value": value}
    numbers = parts_of(value).values
    if not numbers or not all(map(_is_number, numbers)):
        return {}
    return {"low": min(numbers), "high": max(numbers)}


def moved(value: Any, changes: Mapping[str, float]) -> Any:
    """`value` with its ends moved. A choice keeps its options and gains the new ends: what was allowed stays comparable."""
    if "value" in changes:
        return changes["value"]
    kind, numbers, _ = parts_of(value)
    if kind == "choice":
        return {**value, kind: sorted({*numbers, *changes.values()})}
    return {**value, kind: list({**ends(value), **changes}.values())}


def grid_of(value: Any, grain: int) -> Grid | None:
    """Where the ends of a lever may lie: at multiples of `grain` (0: anywhere) that its own step leads to from its low end.

    None when there is no such number (even numbers from 1 on, say).
    """
    apart = parts_of(value).step
    if apart == 1 or not ends(value):
        return 0, grain
    low, common = int(ends(value)["low"]), math.gcd(apart, grain)
    if low % common:
        return None
    times = low // common * pow(grain // common, -1, apart // common) % (apart // common)
    return grain * times, math.lcm(apart, grain)


def on_grid(near: float, grid: Grid, *, upwards: bool) -> float:
    """`near`, or the last number of the grid on the way up, or down, to it."""
    first, apart = grid
    if not apart:
        return near
    return first + apart * (math.floor((near - first) / apart) if upwards else math.ceil((near - first) / apart))


def step(value: float, target: float, limits: Limits, max_step: float, grid: Grid) -> float:
    """`target`, or as near to it as the relative step and the limits allow; `value` itself when there is no room.

    A value that is outside the limits already stays where the user put it.
    """
    low, high = limits
    if not low <= value <= high:
        return value
    reach = max_step * abs(value)
    near = on_grid(min(max(target, value - reach, low), value + reach, high), grid, upwards=target > value)
    return near if (near > value) == (target > value) else value


def next_of(notches: Sequence[float], value: float, target: float, limits: Limits) -> float:
    """The notch next to `value` on the way to `target`, within the limits; `value` itself when there is none."""
    low, high = limits
    between = [notch for notch in notches if low <= notch <= high and min(value, target) <= notch <= max(value, target)]
    return min((notch for notch in between if notch != value), key=lambda notch: abs(notch - value), default=value)


def is_whole(value: Any) -> bool:
    """Whether a lever takes integers only."""
    if isinstance(value, Mapping):
        kind, numbers, _ = parts_of(value)
        return kind in ("int", "adaptive") or (kind == "choice" and all(isinstance(number, int) for number in numbers))
    return isinstance(value, int)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
