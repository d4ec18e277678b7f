"""The learning-rate range test: Smith 2017, "Cyclical Learning Rates for Training Neural Networks" (arXiv:1506.01186), section 3.3.

A short run whose rate climbs, geometrically here, from far too small to far too large; the rate to train with lies well below the one
where the loss is lowest, since there it is about to diverge. How far below is a matter of experience: a tenth.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from autoglm_ops.contracts.record import Record
from autoglm_ops.errors import Refused
from autoglm_ops.training.loop import Engine, Feed

LOW, HIGH = 1e-6, 1.0
STEPS = 60
SMOOTHING = 0.8
"""Share of the past in the running mean of the losses: one batch's luck must not choose the rate."""
EXPLODED = 3.0
"""The climb ends when the smoothed loss is this many times the lowest: what follows says nothing more."""
BELOW = 10.0


class RangeTest(Record):
    """rates: tried in order. losses: smoothed, one per rate. chosen: the learning rate to train with."""

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    chosen: float


def choose(rates: tuple[float, ...], losses: tuple[float, ...]) -> float:
    """A tenth of the rate with the lowest loss. Raises Refused when no rate lowered the first loss."""
    lowest = min(range(len(losses)), key=losses.__getitem__)
    if lowest == 0:
        raise Refused(
            f"the range test found no rate between {rates[0]:.2g} and {rates[-1]:.2g} that lowers the loss ({losses[0]:.4g}); "
            "look at the labels, or set learning_rate and auto_lr = false",
            ("no-rate",),
        )
    return float(f"{rates[lowest] / BELOW:.3g}")


def range_test(engine: Engine, feed: Feed, *, seed: int, steps: int = STEPS, low: float = LOW, high: float = HIGH) -> RangeTest:
    """Climb from `low` to `high` in `steps` steps on `feed`'s batches, and leave weights and random states as they were, bit for bit.

    `engine` must not have taken a step yet: its optimizer is reset. The outcome is a function of weights, batches and `seed`.
    """
    ratio = (high / low) ** (1 / max(1, steps - 1))
    rates, losses = list[float](), list[float]()
    running = 0.0
    with untouched(engine):
        for step in range(1, steps + 1):
            torch.manual_seed(seed * 1_000_003 + step)
            rate = low * ratio ** (step - 1)
            loss = engine.step(feed.take(step).batches, rate)
            if not math.isfinite(loss):
                break
            running = SMOOTHING * running + (1 - SMOOTHING) * loss
            smooth = running / (1 - SMOOTHING**step)
            if losses and smooth > EXPLODED * min(losses):
                break
            rates.append(rate)
            losses.append(smooth)
    if not rates:
        raise Refused(f"the loss is no number even at a learning rate of {low:.2g}; look at the data", ("no-rate",))
    return RangeTest(rates=tuple(rates), losses=tuple(losses), chosen=choose(tuple(rates), tuple(losses)))


@contextmanager
def untouched(engine: Engine) -> Iterator[None]:
    """Weights, optimizer and the random states of torch, numpy and Python are afterwards what they were before."""
    weights, state, norm = engine.weights(), engine.state(), engine.norm
    python, numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            yield
    finally:
        engine.restore(weights, state)
        engine.norm = norm
        random.setstate(python)
        np.random.set_state(numpy)
