"""The training loop, the same for one process (tuning) and for DeepSpeed ranks (training). It knows rows, steps and scores; not devices.

Every random choice is a function of (seed, step, rank), so that a run continued from step N makes the choices the unbroken one made.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.errors import Refused
from autoglm_ops.training.batch import Batch, collate
from autoglm_ops.training.metrics import macro_f1
from autoglm_ops.training.recipe import Recipe, epoch_batches, share

EVALUATION_TOKENS = 16_384
"""Padded tokens of one batch without gradients."""

Weights = dict[str, torch.Tensor]


class Diverged(Refused):
    """The loss or the scores stopped being numbers."""


class Engine(Protocol):
    """What moves weights: one process of plain torch, or one rank of DeepSpeed."""

    rank: int
    ranks: int
    accumulation: int

    def step(self, batches: Sequence[Batch], rate: float) -> float:
        """One optimizer step on this rank's micro-batches; returns their mean loss, before the update."""
        ...

    def logits(self, batch: Batch) -> torch.Tensor:
        """float32 [rows, labels], without gradients."""
        ...

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Elementwise sum over the ranks."""
        ...

    def weights(self) -> Weights:
        """A copy of all weights, on CPU. Every rank calls it; it is whole on each."""
        ...

    def state(self) -> Weights:
        """The optimizer's tensors on this rank, under flat names."""
        ...

    def restore(self, weights: Weights, state: Weights) -> None:
        """Continue from what `weights` and `state` returned."""
        ...


@dataclass
class Progress:
    """Where a run is. It can be written down and continued from."""

    step: int = 0
    samples: int = 0
    tokens: int = 0
    best_step: int = 0
    best_score: float = -1.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    best: Weights = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"steps": 0.0, "evaluations": 0.0})


@dataclass(frozen=True)
class Rows:
    """What is learned from and what is scored on."""

    train: TokenArrays
    validation: TokenArrays
    pad_id: int
    labels: int


Listener = Callable[[Progress], None]
"""Called on every rank after each evaluation. What it raises ends the run (a pruner does that)."""


def fit(
    engine: Engine,
    rows: Rows,
    recipe: Recipe,
    *,
    listeners: Sequence[Listener] = (),
    progress: Progress | None = None,
    keep: bool = True,
) -> Progress:
    """Train for `recipe.steps` steps and return where it came to; `best` are the weights of the best evaluation if `keep`.

    Raises Diverged when a loss is not finite.
    """
    progress = progress or Progress()
    per_epoch = len(rows.train) // recipe.batch_size
    lengths = rows.train.lengths
    epoch, batches = -1, []
    running = 0.0
    since = 0
    while progress.step < recipe.steps:
        clock = time.monotonic()
        if progress.step // per_epoch != epoch:
            epoch = progress.step // per_epoch
            batches = epoch_batches(lengths, recipe.batch_size, recipe.seed, epoch)
        chosen = batches[progress.step % per_epoch]
        progress.step += 1
        running += _step(engine, rows, recipe, chosen, progress.step)
        since += 1
        progress.samples += len(chosen)
        progress.tokens += int(lengths[chosen].sum())
        progress.seconds["steps"] += time.monotonic() - clock
        if progress.step in recipe.report:
            _evaluate(engine, rows, progress, running / since, keep)
            running, since = 0.0, 0
            for listener in listeners:
                listener(progress)
    return progress


def _step(engine: Engine, rows: Rows, recipe: Recipe, chosen: NDArray[np.int64], step: int) -> float:
    torch.manual_seed((recipe.seed * 1_000_003 + step) * 1_009 + engine.rank)
    mine = share(chosen, engine.rank, engine.ranks, engine.accumulation)
    batches = [_dropped(_batch(rows.train, part, rows.pad_id), recipe.token_dropout, rows.pad_id) for part in mine]
    rate = recipe.rate(step)
    loss = engine.step(batches, rate)
    if not math.isfinite(loss):
        raise Diverged(
            f"diverged: the loss is {loss} at step {step} of {recipe.steps} with learning rate {rate:.3g} "
            f"(train.learning_rate = {recipe.learning_rate:.3g}); lower it, or train.gradient_clip"
        )
    return loss


def _evaluate(engine: Engine, rows: Rows, progress: Progress, loss: float, keep: bool) -> None:
    clock = time.monotonic()
    logits = score(engine, rows.validation, rows.pad_id, rows.labels)
    if not np.isfinite(logits).all():
        raise Diverged(f"diverged: validation scores are not finite at step {progress.step}; lower train.learning_rate")
    value = round(macro_f1(np.asarray(rows.validation.labels), logits.argmax(1), rows.labels), 6)
    mean = float(engine.add(np.array([loss]))[0]) / engine.ranks
    progress.losses.append((progress.step, round(mean, 6)))
    progress.validation.append((progress.step, value))
    if value > progress.best_score:
        progress.best_score, progress.best_step = value, progress.step
        if keep:
            progress.best = engine.weights()
    progress.seconds["evaluations"] += time.monotonic() - clock


def score(engine: Engine, arrays: TokenArrays, pad_id: int, labels: int) -> NDArray[np.float64]:
    """Logits of every row, float64 [rows, labels], on every rank: each scores its share, longest rows together."""
    order = np.argsort(arrays.lengths, kind="stable")[engine.rank :: engine.ranks]
    out = np.zeros((len(arrays), labels))
    for part in by_tokens(arrays.lengths, order, EVALUATION_TOKENS):
        out[part] = engine.logits(_batch(arrays, part, pad_id)).numpy()
    return engine.add(out)


def by_tokens(lengths: NDArray[np.int64], order: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Cut `order` (rows, shortest first) into batches of at most `budget` padded tokens, at least one row each."""
    parts: list[NDArray[np.int64]] = []
    start = 0
    for place in range(len(order)):
        if (place - start + 1) * int(lengths[order[place]]) > budget and place > start:
            parts.append(order[start:place])
            start = place
    return [*parts, order[start:]] if start < len(order) else parts


def _batch(arrays: TokenArrays, chosen: NDArray[np.int64], pad_id: int) -> Batch:
    return collate([arrays[int(row)] for row in chosen], arrays.labels[chosen], pad_id)


def _dropped(batch: Batch, share_of: float, pad_id: int) -> Batch:
    """Blank a share of the tokens (never the last one, which is read out): pad's embedding is zero, and they stay attended to."""
    if share_of <= 0:
        return batch
    last = batch.mask.sum(1, keepdim=True) - 1
    inner = torch.arange(batch.ids.shape[1])[None, :] < last
    hit = (torch.rand(batch.ids.shape) < share_of) & inner
    return batch._replace(ids=batch.ids.masked_fill(hit, pad_id))


def optimizer_groups(module: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices; leave biases and norms alone."""
    parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
