"""The search space: settings keys to typed dimensions, checked before a trial is spent, and changed by patches from production."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, Literal

from autoglm_ops.contracts.feedback import SearchSpacePatch
from autoglm_ops.contracts.record import Record, digest_of
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
        "teacher",
        "gradient_clip",
    )
) | frozenset(f"model.{name}" for name in ("hidden_size", "layers", "heads", "dropout"))
"""Settings a trial may change. The batch is not among them: the plan divided it among the ranks."""


class Condition(Record):
    """The dimension counts only while another one has one of these values."""

    key: str
    values: tuple[Any, ...]


class Dimension(Record):
    """One settings key. `low` and `high` belong to ranges, `options` to choices."""

    key: str
    kind: Kind
    low: float = 0.0
    high: float = 0.0
    options: tuple[Any, ...] = ()
    step: int = 1
    """Of whole numbers: they lie so far apart, from `low` on."""
    when: Condition | None = None

    def active(self, choices: Mapping[str, Any]) -> bool:
        return self.when is None or choices.get(self.when.key) in self.when.values

    def contains(self, value: Any) -> bool:
        if self.kind == "choice":
            return value in self.options
        inside = isinstance(value, int | float) and self.low <= value <= self.high
        return inside and (self.step == 1 or (value - self.low) % self.step == 0)

    def as_setting(self) -> dict[str, Any]:
        """As it stands in params.yaml."""
        when = {"when": {self.when.key: list(self.when.values)}} if self.when else {}
        if self.kind == "choice":
            return {"choice": list(self.options), **when}
        bounds = (self.low, self.high)
        step = {"step": self.step} if self.step != 1 else {}
        return {self.kind: [int(bound) for bound in bounds] if self.kind == "int" else list(bounds), **step, **when}

    def value(self, place: float) -> Any:
        """The value at `place` of [0, 1): even on the axis that the kind says."""
        if self.kind == "choice":
            return self.options[min(int(place * len(self.options)), len(self.options) - 1)]
        if self.kind == "int":
            count = (int(self.high) - int(self.low)) // self.step + 1
            return int(self.low) + min(int(place * count), count - 1) * self.step
        if self.kind == "loguniform":
            return min(self.high, math.exp(math.log(self.low) + place * (math.log(self.high) - math.log(self.low))))
        return self.low + place * (self.high - self.low)

    def features(self, choices: Mapping[str, Any]) -> tuple[float, ...]:
        """Where a value lies: one number on [0, 1] for a range (beyond it for a value outside), one per option for a choice."""
        if self.kind == "choice":
            return tuple(0.5 * (self.key in choices and choices[self.key] == option) for option in self.options)
        if self.key not in choices:
            return (0.5,)
        low, high, value = self.low, self.high, float(choices[self.key])
        if self.kind == "loguniform":
            low, high, value = math.log(low), math.log(high), math.log(max(value, 1e-300))
        return ((value - low) / (high - low) if high > low else 0.5,)


class Space(Record):
    """The dimensions, sorted by key. Equal spaces are equal JSON, so two versions can be compared line by line."""

    dimensions: tuple[Dimension, ...]

    def as_settings(self) -> dict[str, Any]:
        return {dimension.key: dimension.as_setting() for dimension in self.dimensions}

    @property
    def ordered(self) -> tuple[Dimension, ...]:
        """Each dimension after the one its condition names."""
        return tuple(sorted(self.dimensions, key=lambda dimension: dimension.when is not None))

    def choose(self, places: Sequence[float]) -> dict[str, Any]:
        """Places of [0, 1), one per dimension, to settings; what a condition rules out is left away."""
        chosen: dict[str, Any] = {}
        for dimension, place in zip(self.ordered, places, strict=True):
            if dimension.active(chosen):
                chosen[dimension.key] = dimension.value(place)
        return chosen

    def features(self, choices: Mapping[str, Any]) -> tuple[float, ...]:
        """What the learning-curve model sees of a configuration."""
        return tuple(number for dimension in self.ordered for number in dimension.features(choices))

    @property
    def version(self) -> str:
        """Digest of the kinds and keys and bounds: equal spaces are the same version."""
        return digest_of(self.as_settings())[:12]


def changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> tuple[str, ...]:
    """A line for each key in which two spaces, as settings, differ."""
    lines = []
    for key in sorted({*old, *new}):
        if key not in new:
            lines.append(f"{key}: {old[key]} is gone")
        elif key not in old:
            lines.append(f"{key}: {new[key]} is new")
        elif old[key] != new[key]:
            lines.append(f"{key}: {old[key]} becomes {new[key]}")
    return tuple(lines)


def parse_space(raw: Mapping[str, Any], known: Collection[str] = TUNABLE) -> Space:
    """Check and type `tune.space`. Raises UsageError naming the key, the value and the rule."""
    space = Space(dimensions=tuple(_parse(key, raw[key], known) for key in sorted(raw)))
    for dimension in space.dimensions:
        _check_condition(dimension, {other.key: other for other in space.dimensions})
    return space


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
    when = _condition(key, value.get("when")) if isinstance(value, Mapping) else None
    step = value.get("step", 1) if isinstance(value, Mapping) and "int" in value else 1
    beside = {"when", "step"} if isinstance(value, Mapping) and "int" in value else {"when"}
    value = {name: bounds for name, bounds in value.items() if name not in beside} if isinstance(value, Mapping) else value
    if not isinstance(value, Mapping) or len(value) != 1 or next(iter(value)) not in KINDS:
        raise UsageError(
            f"{where} = {value!r} must be one of {{{' | '.join((*KINDS, 'adaptive'))}: [...]}}, for example {{uniform: [0.0, 0.4]}}"
        )
    kind, bounds = next(iter(value.items()))
    if not isinstance(bounds, list | tuple):
        raise UsageError(f"{where}: {kind} takes a list, but got {bounds!r}")
    found = _choice(key, where, bounds) if kind == "choice" else _range(key, where, kind, bounds)
    if type(step) is not int or step < 1 or (kind == "int" and (found.high - found.low) % step):
        raise UsageError(f"{where}: step = {step!r} must be a whole number that leads from {found.low} to {found.high}")
    return found.model_copy(update={"when": when, "step": step})


def _condition(key: str, when: Any) -> Condition | None:
    if when is None:
        return None
    if not isinstance(when, Mapping) or len(when) != 1 or not isinstance(next(iter(when.values())), list | tuple):
        raise UsageError(
            f"{PREFIX}{key}: when = {when!r} must name one other key of the space and its values, "
            "for example {model.hidden_size: [128, 256]}"
        )
    other, values = next(iter(when.items()))
    return Condition(key=str(other), values=tuple(values))


def _check_condition(dimension: Dimension, known: Mapping[str, Dimension]) -> None:
    """A condition that can never hold is a contradiction, and is refused before a trial is spent."""
    if dimension.when is None:
        return
    where, other = f"{PREFIX}{dimension.key}", known.get(dimension.when.key)
    if other is None or other.when is not None or other.key == dimension.key:
        raise UsageError(
            f"{where}: when names {dimension.when.key!r}, which must be another key of tune.space without a condition"
        )
    if not any(other.contains(value) for value in dimension.when.values):
        raise UsageError(
            f"{where}: when {other.key} is one of {list(dimension.when.values)!r} can never hold, since {PREFIX}{other.key} is "
            f"{other.as_setting()}; change one of the two"
        )


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
