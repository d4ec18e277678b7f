"""The search space: settings keys to typed dimensions, checked before a trial is spent, and changed by patches from production."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

from autoglm_ops.contracts.feedback import SearchSpacePatch
from autoglm_ops.contracts.record import Record
from autoglm_ops.errors import UsageError

Kind = Literal["loguniform", "uniform", "int", "choice"]
KINDS: tuple[Kind, ...] = ("loguniform", "uniform", "int", "choice")
PREFIX = "tune.space."
TUNABLE = frozenset(
    f"train.{name}"
    for name in (
        "learning_rate",
        "weight_decay",
        "warmup_share",
        "schedule",
        "label_smoothing",
        "token_dropout",
        "gradient_clip",
    )
) | frozenset(f"model.{name}" for name in ("hidden_size", "layers", "heads", "dropout"))
"""Settings a trial may change. The batch is not among them: the plan divided it among the ranks."""


class Dimension(Record):
    """One settings key. `low` and `high` belong to ranges, `options` to choices."""

    key: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    options: tuple[Any, ...] = ()

    def contains(self, value: Any) -> bool:
        if self.kind == "choice":
            return value in self.options
        return isinstance(value, int | float) and self.low <= value <= self.high

    def as_setting(self) -> dict[str, Any]:
        """As it stands in params.yaml."""
        if self.kind == "choice":
            return {"choice": list(self.options)}
        bounds = (self.low, self.high)
        return {self.kind: [int(bound) for bound in bounds] if self.kind == "int" else list(bounds)}


class Space(Record):
    """The dimensions, sorted by key. Equal spaces are equal JSON, so two versions can be compared line by line."""

    dimensions: tuple[Dimension, ...]

    def as_settings(self) -> dict[str, Any]:
        return {dimension.key: dimension.as_setting() for dimension in self.dimensions}


def parse_space(raw: Mapping[str, Any], known: Collection[str] = TUNABLE) -> Space:
    """Check and type `tune.space`. Raises UsageError naming the key, the value and the rule."""
    return Space(dimensions=tuple(_parse(key, raw[key], known) for key in sorted(raw)))


def patched(raw: Mapping[str, Any], patches: Sequence[SearchSpacePatch]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`tune.space` with the active patches laid over it, oldest first, and a reason for each. Patches of other settings are left alone."""
    result = dict(raw)
    reasons = []
    for patch in patches:
        if not patch.key.startswith(PREFIX):
            continue
        key = patch.key.removeprefix(PREFIX)
        reasons.append(f"patch {patch.key}: {result.get(key)} becomes {patch.new} ({patch.signal}: {patch.reason})")
        result[key] = patch.new
    return result, tuple(reasons)


def _parse(key: str, value: Any, known: Collection[str]) -> Dimension:
    where = f"{PREFIX}{key}"
    if key not in known:
        near = get_close_matches(key, sorted(known), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}"
        raise UsageError(f"{where} is not a setting that can be tuned; {hint}")
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in KINDS:
        raise UsageError(
            f"{where} = {value!r} must be one of {{{' | '.join(KINDS)}: [...]}}, for example {{uniform: [0.0, 0.4]}}"
        )
    kind, bounds = next(iter(value.items()))
    if not isinstance(bounds, list | tuple):
        raise UsageError(f"{where}: {kind} takes a list, but got {bounds!r}")
    return _choice(key, where, bounds) if kind == "choice" else _range(key, where, kind, bounds)


def _choice(key: str, where: str, options: Sequence[Any]) -> Dimension:
    plain = all(isinstance(option, str | int | float) for option in options)
    if not options or not plain or len(set(options)) != len(options):
        raise UsageError(f"{where}: choice takes one or more distinct plain values, but got {list(options)!r}")
    return Dimension(key=key, kind="choice", options=tuple(options))


def _range(key: str, where: str, kind: Kind, bounds: Sequence[Any]) -> Dimension:
    numbers = [
        bound for bound in bounds if isinstance(bound, int | float) and not isinstance(bound, bool) and math.isfinite(bound)
    ]
    if len(bounds) != 2 or len(numbers) != 2:
        raise UsageError(f"{where}: {kind} takes [low, high], two finite numbers, but got {list(bounds)!r}")
    low, high = numbers
    if low > high:
        raise UsageError(f"{where}: low must not be above high, but got low={low}, high={high}; swap them")
    if kind == "loguniform" and low <= 0:
        raise UsageError(f"{where}: loguniform must lie above 0, but got low={low}; raise it or use uniform")
    if kind == "int" and not all(float(bound).is_integer() for bound in numbers):
        raise UsageError(f"{where}: int takes whole numbers, but got {list(bounds)!r}")
    return Dimension(key=key, kind=kind, low=low, high=high)
