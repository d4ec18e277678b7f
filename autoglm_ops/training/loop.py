"""The training loop, the same for one process (tuning, AutoGLMTrainer) and for DeepSpeed ranks (the stage). It knows steps, losses and
scores; not rows, not devices.

Every random choice is a function of (seed, step, rank), so that a run continued from step N makes the choices the unbroken one made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.errors import Refused
from autoglm_ops.training import mean
from autoglm_ops.training.batch import Fed
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.progress import Progress, Weights
from autoglm_ops.training.recipe import Recipe


class Diverged(Refused):
    """The loss or the scores stopped being numbers."""


class Engine(Protocol):
    """What moves weights: one process of plain torch, one rank of DeepSpeed, or one that holds a part of the model."""

    rank: int
    ranks: int
    reader: int
    """Which share of the rows is this rank's, of `readers`: ranks that compute one copy of the model together read the same."""
    readers: int
    accumulation: int
    norm: float
    """The last step's gradient norm before clipping; 0 where the engine does not say."""

    before_update: Callable[[], None]
    """Called before the weights and the optimizer's state change: by the next update, or by `restore`."""

    @property
    def resumable(self) -> bool:
        """Whether `state` and `restore` work."""
        ...

    def step(self, batches: Sequence[Fed], rate: float) -> float:
        """One optimizer step on this rank's micro-batches; returns their mean loss, before the update."""
        ...

    def logits(self, batch: Fed) -> torch.Tensor:
        """The module's logits in float32 on CPU, without gradients: [rows, labels], or [rows, width, vocabulary]."""
        ...

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Elementwise sum over the ranks."""
        ...

    def weights(self) -> Weights:
        """A copy of what is learned, on CPU: all weights, or the trainable ones where others are frozen. Whole on every rank."""
        ...

    def live(self) -> Weights:
        """What a run is continued from, on this rank: fp32 weights, moments, counts. Views, which change with the next step."""
        ...

    def state(self) -> Weights:
        """A copy of `live`."""
        ...

    def put(self, weights: Weights) -> None:
        """Compute `logits` with these, which are whole and on every rank, as `weights` returns them; no step may follow."""
        ...

    def restore(self, weights: Weights, state: Weights) -> None:
        """Continue from what `state` returned, here or on all ranks of another layout; every rank calls it.

        The state holds the weights. `weights`, whole ones by name, go before those in it; empty leaves them.
        """
        ...


class Taken(NamedTuple):
    """One step's share of this rank, and what the whole global batch holds."""

    batches: list[Fed]
    samples: int
    tokens: int


class Feed(Protocol):
    """Where batches come from."""

    def take(self, step: int) -> Taken:
        """The batches of step 1, 2, …, asked for in order, from the step after the one a run is continued from. torch is seeded before."""
        ...


class Judge(Protocol):
    """What validation measures. `higher`: whether more is better."""

    metric: str
    higher: bool

    def score(self, engine: Engine, step: int) -> float:
        """The value on the validation rows, the same on every rank. Raises Diverged when it is no number."""
        ...


def run(
    engine: Engine,
    feed: Feed,
    judge: Judge,
    recipe: Recipe,
    *,
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    keep: bool = True,
) -> Progress:
    """Train for `recipe.steps` steps and return where it came to; `best`, if `keep`, are the weights of the best evaluation, or the
    mean of those of the last steps where `recipe` has averaged some. `engine` is left with the mean, which the last entry of `validation`
    is about; the entries before it are about the weights as they were.

    Raises Diverged when a loss is not finite.
    """
    progress = progress or Progress()
    progress.steps, progress.metric = recipe.steps, judge.metric
    for callback in callbacks:
        callback.on_start(progress)
    try:
        _steps(engine, feed, judge, recipe, callbacks, progress, keep)
    finally:
        for callback in callbacks:
            callback.on_end(progress)
    return progress


def _steps(
    engine: Engine, feed: Feed, judge: Judge, recipe: Recipe, callbacks: Sequence[Callback], progress: Progress, keep: bool
) -> None:
    while progress.step < recipe.steps and not progress.stop:
        clock = time.monotonic()
        progress.step += 1
        progress.running += _step(engine, feed, recipe, progress)
        progress.since += 1
        if keep and progress.step in recipe.averaged:
            progress.best = mean.taken(progress.best, engine.weights(), mean.count(recipe, progress.step))
        progress.seconds["steps"] += time.monotonic() - clock
        for callback in callbacks:
            callback.on_step(progress)
        if progress.step in recipe.report or progress.stop:
            averaging = keep and mean.count(recipe, progress.step) > 0
            if averaging and (progress.stop or progress.step == recipe.steps):
                engine.put(progress.best)
                progress.averaged = True
            _evaluate(engine, judge, progress, progress.running / progress.since, keep and not averaging)
            progress.running, progress.since = 0.0, 0
            for callback in callbacks:
                callback.on_validation(progress)


def _step(engine: Engine, feed: Feed, recipe: Recipe, progress: Progress) -> float:
    torch.manual_seed((recipe.seed * 1_000_003 + progress.step) * 1_009 + engine.reader)
    taken = feed.take(progress.step)
    rate = recipe.rate(progress.step) * progress.scale
    loss = engine.step(taken.batches, rate)
    if not math.isfinite(loss):
        raise Diverged(
            f"diverged: the loss is {loss} at step {progress.step} of {recipe.steps} with learning rate {rate:.3g} "
            f"(train.learning_rate = {recipe.learning_rate:.3g}); lower it, or train.gradient_clip"
        )
    progress.loss, progress.rate, progress.norm = loss, rate, engine.norm
    progress.samples += taken.samples
    progress.tokens += taken.tokens
    return loss


def _evaluate(engine: Engine, judge: Judge, progress: Progress, loss: float, keep: bool) -> None:
    clock = time.monotonic()
    value = round(judge.score(engine, progress.step), 6)
    loss = float(engine.add(np.array([loss]))[0]) / engine.ranks
    progress.losses.append((progress.step, round(loss, 6)))
    progress.validation.append((progress.step, value))
    always = progress.best_step == 0 or progress.averaged
    if always or (value > progress.best_score if judge.higher else value < progress.best_score):
        progress.best_score, progress.best_step = value, progress.step
        if keep:
            progress.best = engine.weights()
    progress.seconds["evaluations"] += time.monotonic() - clock
