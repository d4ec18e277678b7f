"""`adaptive: [low, high]`: a range of a model's size, cut to what fits into memory. Pure; whether something fits is the caller's to say."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from autoglm_ops.contracts.space import parts_of
from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.tuning.space import PREFIX, parse_space

SIZES = ("model.hidden_size", "model.layers", "model.heads")
Fits = Callable[[Mapping[str, Any]], str]
"""Settings over the present ones -> why they do not fit, "" when they do."""


def adapted(raw: Mapping[str, Any], present: Mapping[str, Any], fits: Fits) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`tune.space` with every adaptive range as whole numbers that fit, and a reason for each.

    A range is cut while the other searched sizes are at their smallest; a combination that is too large all the same is a trial that fails
    before it is trained. `present`: the present value of each key of a model's size. Raises UsageError for a range that is none, Refused
    when not even its smallest value fits.
    """
    result, reasons = dict(raw), list[str]()
    smallest = {key: _smallest(raw[key]) for key in SIZES if key in raw}
    for key, entry in raw.items():
        if not isinstance(entry, Mapping) or "adaptive" not in entry:
            continue
        step = _quantum(raw, present) if key == "model.hidden_size" else 1
        low, high = _bounds(key, entry["adaptive"], step)
        top = _largest(key, low, high, step, smallest, fits)
        more = {name: value for name, value in entry.items() if name != "adaptive"}
        result[key] = {"int": [low, top], **({"step": step} if step > 1 else {}), **more}
        said = f"{PREFIX}{key}: adaptive {list(entry['adaptive'])} is {low} to {top}" + (f" by {step}" if step > 1 else "")
        reasons.append(f"{said}: {_why(key, top + step, high, smallest, fits)}")
    return result, tuple(reasons)


def uncut(raw: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`tune.space` with every adaptive range as whole numbers, whole, before it is known what fits. Raises UsageError for one that is none."""
    result, reasons = dict(raw), list[str]()
    for key, entry in raw.items():
        if isinstance(entry, Mapping) and "adaptive" in entry:
            low, high = _bounds(key, entry["adaptive"], 1)
            result[key] = {"int": [low, high], **{name: value for name, value in entry.items() if name != "adaptive"}}
            reasons.append(f"{PREFIX}{key}: adaptive {[low, high]} is cut to memory when the study starts")
    return result, tuple(reasons)


def _bounds(key: str, value: Any, step: int) -> tuple[int, int]:
    where = f"{PREFIX}{key}"
    if key not in SIZES:
        raise UsageError(f"{where}: adaptive is for {', '.join(SIZES)}, which memory bounds; use int, uniform or loguniform")
    whole = isinstance(value, list | tuple) and len(value) == 2 and all(type(bound) is int and bound >= 1 for bound in value)
    if not whole or value[0] > value[1]:
        raise UsageError(f"{where}: adaptive takes [low, high], two whole numbers from 1 on, low first, but got {value!r}")
    low, high = -(-value[0] // step) * step, value[1] // step * step
    if low > high:
        raise UsageError(
            f"{where}: adaptive {list(value)} holds no multiple of {step}, 4 × the heads that are searched; widen it, or search fewer heads"
        )
    return low, high


def _largest(key: str, low: int, high: int, step: int, smallest: Mapping[str, int], fits: Fits) -> int:
    """By halving: more of a size never needs less memory."""
    if why := fits({**smallest, key: low}):
        raise Refused(
            f"no-room: {PREFIX}{key}: not even {low} fits: {why}; lower the range, train.batch_size or tokenize.max_length"
        )
    there, beyond = low, high + step
    while beyond - there > step:
        middle = there + (beyond - there) // step // 2 * step
        if fits({**smallest, key: middle}):
            beyond = middle
        else:
            there = middle
    return there


def _why(key: str, beyond: int, high: int, smallest: Mapping[str, int], fits: Fits) -> str:
    return "all of it fits" if beyond > high else f"{beyond} does not fit: {fits({**smallest, key: beyond})}"


def _smallest(entry: Any) -> Any:
    values = parts_of(entry).values
    return min(values) if values and all(type(v) is int for v in values) else None


def _quantum(raw: Mapping[str, Any], present: Mapping[str, Any]) -> int:
    """What a hidden size must be a multiple of: 4 × each number of heads that may go with it (rotary embeddings turn pairs in half a head).

    Raises UsageError where the heads that are searched are no whole numbers from 1 on.
    """
    entry = raw.get("model.heads")
    return 4 * math.lcm(*(_heads(entry) if entry is not None else [int(present["model.heads"])]))


def _heads(entry: Any) -> Sequence[int]:
    kind, values, step = parts_of(entry)
    if kind == "adaptive":
        _bounds("model.heads", values, 1)
    else:
        parse_space({"model.heads": {key: value for key, value in entry.items() if key != "when"} if kind else entry})
    if kind not in ("adaptive", "int", "choice") or not all(type(value) is int and value >= 1 for value in values):
        raise UsageError(f"{PREFIX}model.heads: give int or choice, of whole numbers from 1 on, but got {entry!r}")
    return values if kind == "choice" else range(values[0], values[1] + 1, step)
