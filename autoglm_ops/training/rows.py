"""Token rows of the cycle as the loop's feed and judge: batches by length, tokens blanked, macro-F1."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.errors import UsageError
from autoglm_ops.training.batch import Batch, Fed, collate
from autoglm_ops.training.callbacks.base import AfterValidation, Callback
from autoglm_ops.training.loop import Diverged, Engine, Taken, run
from autoglm_ops.training.metrics import macro_f1
from autoglm_ops.training.progress import Progress
from autoglm_ops.training.recipe import Recipe, epoch_batches, share

EVALUATION_TOKENS = 16_384
"""Padded tokens of one batch without gradients."""


@dataclass(frozen=True)
class Rows:
    """What is learned from and what is scored on."""

    train: TokenArrays
    validation: TokenArrays
    pad_id: int
    labels: int


def fit(
    engine: Engine,
    rows: Rows,
    recipe: Recipe,
    *,
    listeners: Sequence[Callable[[Progress], None]] = (),
    callbacks: Sequence[Callback] = (),
    progress: Progress | None = None,
    keep: bool = True,
) -> Progress:
    """The loop over `rows`; `listeners` are called on every rank after each evaluation. See `loop.run`."""
    heard = [*(AfterValidation(listener) for listener in listeners), *callbacks]
    feed, judge = RowFeed(rows, recipe, engine), MacroF1(rows)
    return run(engine, feed, judge, recipe, callbacks=heard, progress=progress, keep=keep)


class RowFeed:
    """Epoch after epoch of shuffled rows; a function of the seed and the step alone."""

    def __init__(self, rows: Rows, recipe: Recipe, engine: Engine) -> None:
        self._rows, self._recipe, self._engine = rows, recipe, engine
        self._lengths = rows.train.lengths
        self._per_epoch = len(rows.train) // recipe.batch_size
        self._epoch, self._batches = -1, list[NDArray[np.int64]]()

    def take(self, step: int) -> Taken:
        epoch, place = divmod(step - 1, self._per_epoch)
        if epoch != self._epoch:
            self._epoch = epoch
            self._batches = epoch_batches(self._lengths, self._recipe.batch_size, self._recipe.seed, epoch)
        chosen = self._batches[place]
        mine = share(chosen, self._engine.reader, self._engine.readers, self._engine.accumulation)
        return Taken([self._batch(part) for part in mine], len(chosen), int(self._lengths[chosen].sum()))

    def _batch(self, part: NDArray[np.int64]) -> Batch:
        pad_id = self._rows.pad_id
        batch, weights = _batch(self._rows.train, part, pad_id), self._rows.train.weights
        if weights is not None:
            batch = batch._replace(weights=torch.from_numpy(np.asarray(weights[part])))
        if self._recipe.teacher:
            batch = batch._replace(targets=self._targets(part, batch.labels))
        return _dropped(batch, self._recipe.token_dropout, pad_id)

    def _targets(self, part: NDArray[np.int64], labels: torch.Tensor) -> torch.Tensor:
        """Each row's label and what the teacher thinks of it, mixed; float32 [rows, labels]. Raises UsageError where nobody was asked."""
        opinions, share_of = self._rows.train.teacher, self._recipe.teacher
        if opinions is None:
            raise UsageError(f"train.teacher = {share_of} needs the opinions of a teacher; set tokenize.teacher to tfidf")
        certain = torch.nn.functional.one_hot(labels, self._rows.labels)
        return (1 - share_of) * certain + share_of * torch.from_numpy(np.asarray(opinions[part]))


class Scorer(Protocol):
    """Of an `Engine`, what it is scored by."""

    rank: int
    ranks: int

    def logits(self, batch: Fed) -> torch.Tensor: ...

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]: ...


class MacroF1:
    """Macro-F1 of the validation rows."""

    metric = "macro-F1"
    higher = True

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def score(self, engine: Scorer, step: int) -> float:
        rows = self._rows
        logits = score(engine, rows.validation, rows.pad_id, rows.labels)
        if not np.isfinite(logits).all():
            raise Diverged(f"diverged: validation scores are not finite at step {step}; lower train.learning_rate")
        return macro_f1(np.asarray(rows.validation.labels), logits.argmax(1), rows.labels)


def score(engine: Scorer, arrays: TokenArrays, pad_id: int, labels: int) -> NDArray[np.float64]:
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
