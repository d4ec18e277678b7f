"""Which signal moves which lever. Rules are data; `feedback.rules` names a YAML file with your own:

    - {when: [latency > 0.5], key: train.learning_rate, multiply: 0.9, ends: [low, high], reason: latency over its threshold}
    - {when: [quality < 0.9], key: model.hidden_size, add: 16, reason: accuracy under its target}
    - {when: [latency > 0.5], key: train.quantization, set: int8, reason: latency over its threshold}

A condition is a signal's name (it fired), or a signal against a limit of yours: it holds when the whole interval is beyond the limit.

The defaults move only what can plausibly cure the signal: latency comes from the size of a model, and of a wide one from its
arithmetic, not from its learning rate.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args

from pydantic import Field, ValidationError, model_validator

from autoglm_ops.contracts.feedback import Signal, SignalName
from autoglm_ops.contracts.record import Record
from autoglm_ops.errors import SettingsError
from autoglm_ops.feedback.levers import WORDS, Levers

End = Literal["low", "high"]
_CONDITION = re.compile(r"^([a-z-]+)(?:\s*([<>])\s*(\d+(?:\.\d+)?(?:[eE]-?\d+)?))?$")


class Condition(NamedTuple):
    """A signal that fired, or that is wholly above or below `limit`."""

    name: str
    side: str
    limit: float

    @classmethod
    def of(cls, text: str) -> Condition:
        """Parse "latency" or "latency > 0.5". Raises ValueError."""
        found = _CONDITION.match(text.strip())
        if found is None or found[1] not in get_args(SignalName):
            raise ValueError(
                f"{text!r} is no condition: give {', '.join(get_args(SignalName))}, or one of them > or < a number"
            )
        return cls(found[1], found[2] or "", float(found[3] or 0))

    def holds(self, said: Mapping[str, Signal]) -> bool:
        signal = said.get(self.name)
        if signal is None or signal.silent:
            return False
        if not self.side:
            return signal.fired
        return signal.low > self.limit if self.side == ">" else signal.high < self.limit


class Rule(Record):
    """When all of `when` hold and none of `unless`: move `key` by a factor or by an amount, or set it to one of its WORDS.

    key: a setting such as "train.learning_rate"; when the search space holds it, the named ends of its range move, else its
    fixed value does. start: where a setting that is off (0) begins, since a factor moves no zero. least: the rule is for models of which
    these settings are at least so much; one that says nothing of it (the width of a folder's model) is not kept from it.
    """

    when: tuple[str, ...] = Field(min_length=1)
    unless: tuple[str, ...] = ()
    key: str
    multiply: float | None = Field(default=None, gt=0)
    add: float | None = None
    set: str | None = None
    least: dict[str, float] = {}
    start: float | None = Field(default=None, gt=0)
    ends: tuple[End, ...] = Field(default=("high",), min_length=1)
    reason: str

    @model_validator(mode="after")
    def _one_change(self) -> Rule:
        if [self.multiply, self.add, self.set].count(None) != 2:
            raise ValueError(f"the rule for {self.key} must have one of multiply, add and set")
        values = WORDS.get(self.key, ())
        words = [value for value in values if isinstance(value, str)]
        if self.set not in words and (self.set is not None or len(words) == len(values) > 0):
            raise ValueError(f"{self.key} is set to one of {', '.join(words)}" if words else f"{self.key} is no word to be set")
        for text in (*self.when, *self.unless):
            Condition.of(text)
        return self

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals it stands on."""
        return tuple(dict.fromkeys(Condition.of(text).name for text in self.when))

    def holds(self, said: Mapping[str, Signal]) -> bool:
        """Whether the rule speaks, given every signal by name."""
        return all(Condition.of(text).holds(said) for text in self.when) and not any(
            Condition.of(text).holds(said) for text in self.unless
        )

    def concerns(self, space: Levers) -> bool:
        """Whether it is for a model with these levers."""
        return all(space[key] >= least for key, least in self.least.items() if isinstance(space.get(key), int | float))

    def target(self, value: float) -> float:
        """Where the rule would have `value`, before any bound."""
        if value == 0 and self.start is not None:
            return self.start
        return value * self.multiply if self.multiply is not None else value + (self.add or 0.0)

    @property
    def upwards(self) -> bool:
        """Which way it moves a value that is on."""
        return self.multiply > 1 if self.multiply is not None else (self.add or 0.0) > 0


def parse(items: Any, where: str) -> tuple[Rule, ...]:
    """The rules of a parsed YAML file. Raises SettingsError naming the file, the rule and what is wrong with it."""
    if not isinstance(items, Sequence) or isinstance(items, str) or not items:
        raise SettingsError(f"{where} must be a list of rules, each with when, key, multiply, add or set, and reason")
    rules = []
    for number, item in enumerate(items, start=1):
        try:
            rules.append(Rule.model_validate(item))
        except ValidationError as error:
            first = error.errors()[0]
            place = ".".join(map(str, first["loc"])) or "the rule"
            raise SettingsError(f"{where}, rule {number}: {place}: {first['msg']}") from error
    return tuple(rules)


RULES = (
    Rule(
        when=("quality",),
        unless=("drift",),
        key="model.dropout",
        multiply=1.25,
        reason="quality fell on texts like those trained on: the model may be overfitted, so allow more dropout",
    ),
    Rule(
        when=("quality",),
        unless=("drift",),
        key="train.token_dropout",
        multiply=1.25,
        reason="quality fell on texts like those trained on: the model may be overfitted, so allow blanking more tokens",
    ),
    Rule(
        when=("quality",),
        unless=("drift",),
        key="train.weight_decay",
        multiply=1.5,
        reason="quality fell on texts like those trained on: allow stronger weight decay",
    ),
    Rule(
        when=("quality",),
        unless=("drift",),
        key="model.hidden_size",
        add=16,
        reason="quality fell on texts like those trained on: the model may be too small, so allow a wider one",
    ),
    Rule(
        when=("drift",),
        key="train.learning_rate",
        multiply=1.25,
        reason="the texts moved away from those trained on: allow larger steps to follow them",
    ),
    Rule(
        when=("quality", "drift"),
        key="train.epochs",
        multiply=1.2,
        reason="the texts moved and quality fell with them: new domains need more passes",
    ),
    Rule(
        when=("drift",),
        key="prepare.half_life_days",
        set="auto",
        reason="the texts moved away from those trained on: rows of late days weigh more, as far as the last days show that it helps",
    ),
    Rule(
        when=("latency",),
        key="model.hidden_size",
        multiply=0.8,
        reason="answers are slow: allow only narrower models",
    ),
    Rule(
        when=("latency",),
        key="tokenize.max_length",
        multiply=0.75,
        reason="answers are slow: the longest texts are read less far",
    ),
    Rule(
        when=("latency",),
        key="serving.batch_wait_ms",
        multiply=0.5,
        reason="answers are slow: a batch waits less for company",
    ),
    Rule(
        when=("latency",),
        key="train.quantization",
        set="int8",
        least={"model.hidden_size": 256},  # narrower ones gain nothing by it (tests/benchmarks/bench_int8.py)
        reason="answers are slow: the next model is published as int8",
    ),
    Rule(
        when=("cost",),
        key="model.hidden_size",
        multiply=0.8,
        reason="answers are dear: allow only narrower models",
    ),
    Rule(
        when=("variance",),
        unless=("drift",),
        key="train.learning_rate",
        multiply=0.8,
        reason="quality moves from day to day though the texts do not: allow only smaller steps",
    ),
)
