"""What a person left open of a language model's training, filled in: each value with its reason. Pure."""

from __future__ import annotations

import math
from typing import NamedTuple

TOKENS_PER_BATCH = 1 << 19
"""Half a million: what GPT-3's small models were trained with (Brown et al. 2020, arXiv:2005.14165, table 2.1)."""
STEPS_WANTED = 200
"""Fewer optimizer steps than this in all leave a schedule no room."""
ADAPTER_RATE = 2e-4
"""Of LoRA on GPT-3 (Hu et al. 2021, arXiv:2106.09685, table 12) and of QLoRA up to 13 B (Dettmers et al. 2023, arXiv:2305.14314)."""
SGD_FACTOR = 30.0
"""A gradient clipped to a norm of 1 moves a single weight far less than Adam's unit step does. A start for the tuner, not a law."""


class Filled(NamedTuple):
    """One setting as the run takes it. `given`: the config says so itself."""

    key: str
    value: object
    reason: str
    given: bool = False


def batch_size(given: int | None, rows: int, length: int, epochs: float) -> Filled:
    """Rows of the global batch: a power of two, at most TOKENS_PER_BATCH tokens, small enough for STEPS_WANTED steps over the data."""
    key = "training.batch_size"
    if given is not None:
        return Filled(key, given, "the config says so; it is kept exactly, by accumulation", True)
    most = max(1, TOKENS_PER_BATCH // length)
    fitting = max(1, int(rows * epochs) // STEPS_WANTED)
    chosen = 1 << (min(most, fitting).bit_length() - 1)
    if most <= fitting:
        return Filled(
            key, chosen, f"{chosen * length:,} tokens a step, as GPT-3's small models had (arXiv:2005.14165, table 2.1)"
        )
    return Filled(key, chosen, f"the largest power of two that leaves {rows:,} rows x {epochs:g} epochs {STEPS_WANTED} steps")


def learning_rate(given: float | None, parameters: int, optimizer: str, adapters: bool) -> Filled:
    """The peak. From scratch: 0.003239 - 0.0001395 ln(parameters) (Kaplan et al. 2020, arXiv:2001.08361, appendix D.6)."""
    key = "training.learning_rate"
    if given is not None:
        return Filled(key, given, "the config says so", True)
    if adapters:
        rate, why = ADAPTER_RATE, "what LoRA was published with (arXiv:2106.09685, table 12)"
    else:
        rate = max(3e-5, 0.003239 - 0.0001395 * math.log(max(parameters, 1)))
        why = f"0.003239 - 0.0001395 ln({parameters:,} parameters) (arXiv:2001.08361, D.6)"
    if optimizer == "sgd":
        rate, why = rate * SGD_FACTOR, f"{why}, times {SGD_FACTOR:g} for sgd"
    return Filled(key, float(f"{rate:.3g}"), why)


def seq_length(given: int | None, limit: int | None) -> Filled:
    """Tokens of a row."""
    key = "model.seq_length"
    if given is not None:
        return Filled(key, given, "the config says so", True)
    if limit is not None and limit < 2048:
        return Filled(key, limit, "the most positions this model has")
    return Filled(key, 2048, "what most models of this kind are trained on; longer rows cost attention by their square")
