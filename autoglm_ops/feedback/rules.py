"""Which signal moves which lever. Rules are data: the same table can be written in YAML.

    - {when: [latency], key: train.learning_rate, multiply: 0.9, ends: [low, high], reason: latency over its threshold}
    - {when: [quality], key: model.hidden_size, add: 16, reason: accuracy under its target}

The defaults move only what can plausibly cure the signal: latency comes from the size of a model, not from its learning rate.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from autoglm_ops.contracts.record import Record

SignalName = Literal["quality", "drift", "latency", "error-rate"]
End = Literal["low", "high"]


class Rule(Record):
    """When all of `when` fired and none of `unless`: move `key` by a factor or by an amount.

    key: a setting such as "train.learning_rate"; when the search space holds it, the named ends of its range move, else its
    fixed value does.
    """

    when: tuple[SignalName, ...] = Field(min_length=1)
    unless: tuple[SignalName, ...] = ()
    key: str
    multiply: float | None = Field(default=None, gt=0)
    add: float | None = None
    ends: tuple[End, ...] = Field(default=("high",), min_length=1)
    reason: str

    @model_validator(mode="after")
    def _one_change(self) -> Rule:
        if (self.multiply is None) == (self.add is None):
            raise ValueError(f"the rule for {self.key} must have either multiply or add")
        return self

    def target(self, value: float) -> float:
        """Where the rule would have `value`, before any bound."""
        return value * self.multiply if self.multiply is not None else value + (self.add or 0.0)


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
        when=("latency",),
        key="model.hidden_size",
        multiply=0.8,
        reason="answers are slow: allow only narrower models",
    ),
)
