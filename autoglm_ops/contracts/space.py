"""A search space in Python, which says exactly what `tune.space` of params.yaml says. Import it as `tune`:

    from autoglm_ops.tuning import tune

    space = {
        "model.hidden_size": tune.adaptive(32, 256),        # in YAML: {adaptive: [32, 256]}
        "train.learning_rate": tune.loguniform(1e-4, 1e-2),
        "train.schedule": tune.choice("linear", "cosine"),
        "model.dropout": tune.uniform(0.0, 0.3, when={"model.hidden_size": [128, 256]}),
    }

The same words may stand as text in params.yaml and after --set: `model.hidden_size: tune.adaptive(32, 256)`. Text is read, never run.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

Entry = dict[str, Any]
"""One value of `tune.space`."""
When = Mapping[str, Sequence[Any]] | None
"""Another key of the space, and its values with which this one counts."""
KINDS = ("adaptive", "loguniform", "uniform", "int", "choice")


class Parts(NamedTuple):
    """What an entry says beside its condition. values: [low, high], or the options of a choice. step: how far apart whole numbers lie."""

    kind: str
    values: Sequence[Any]
    step: int


def parts_of(entry: Any) -> Parts:
    """The parts of an entry, in whatever order its keys stand; kind "" for what is none. What is wrong in them `parse_space` says: a step
    that is no whole number from 1 on counts as 1 here, and bounds that are no list as none."""
    kind = next((word for word in KINDS if word in entry), "") if isinstance(entry, Mapping) else ""
    values, step = (entry[kind], entry.get("step", 1)) if kind else ((), 1)
    stepped = kind in ("int", "adaptive") and type(step) is int and step >= 1
    return Parts(kind, values if isinstance(values, list | tuple) else (), step if stepped else 1)


def adaptive(low: int, high: int, *, when: When = None) -> Entry:
    """Whole numbers from `low` to what fits into memory by the plan, `high` at most. For hidden_size, layers and heads of a model."""
    return _entry("adaptive", [low, high], when)


def loguniform(low: float, high: float, *, when: When = None) -> Entry:
    """Even on a logarithmic axis."""
    return _entry("loguniform", [low, high], when)


def uniform(low: float, high: float, *, when: When = None) -> Entry:
    """Even between two numbers."""
    return _entry("uniform", [low, high], when)


def integer(low: int, high: int, *, step: int = 1, when: When = None) -> Entry:
    """Whole numbers, both ends included, `step` apart. In YAML: {int: [low, high], step: 1}."""
    return _entry("int", [low, high], when) | ({"step": step} if step != 1 else {})


def choice(*options: Any, when: When = None) -> Entry:
    """One of these."""
    return _entry("choice", list(options), when)


WORDS: dict[str, Callable[..., Entry]] = {
    "adaptive": adaptive,
    "loguniform": loguniform,
    "uniform": uniform,
    "integer": integer,
    "choice": choice,
}


def spoken(text: str) -> Entry:
    """What `tune.loguniform(1e-4, 1e-2)` says, written as text. Raises ValueError for anything but one of the words and plain values."""
    try:
        call = ast.parse(text.strip(), mode="eval").body
        if not isinstance(call, ast.Call) or not isinstance(call.func, ast.Attribute) or ast.unparse(call.func.value) != "tune":
            raise ValueError("it is no call of tune")
        word = WORDS[call.func.attr]
        values = [ast.literal_eval(argument) for argument in call.args]
        named = {str(item.arg): ast.literal_eval(item.value) for item in call.keywords}
        return word(*values, **named)
    except (SyntaxError, ValueError, KeyError, TypeError, RecursionError, MemoryError) as error:
        known = ", ".join(f"tune.{name}(…)" for name in WORDS)
        raise ValueError(
            f"{text[:100]!r} is none of {known} with plain values, nor a mapping like {{uniform: [0, 1]}}"
        ) from error


def _entry(kind: str, values: list[Any], when: When) -> Entry:
    condition = {"when": {key: list(values) for key, values in when.items()}} if when else {}
    return {kind: values, **condition}
