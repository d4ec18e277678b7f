"""Packed rows on disk as a language model's feed and judge: every step takes exactly the global batch, a function of seed and step.

A folder holds `part-<n>.tokens.npy` and `part-<n>.segments.npy`, int32 [rows, length]: ids, and 1, 2, … for the documents of a row,
0 where padding is; and for conversations `part-<n>.asked.npy`, bool, true where a token is to be learned. Memory-mapped.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.errors import BadData
from autoglm_ops.training.batch import MULTIPLE, DictBatch
from autoglm_ops.training.loop import Diverged, Engine, Taken
from autoglm_ops.training.objective import IGNORED, Objective
from autoglm_ops.training.recipe import Recipe, share


class PackedRows:
    """The rows of one split."""

    def __init__(self, folder: Path) -> None:
        names = sorted(path.name.removesuffix(".tokens.npy") for path in folder.glob("part-*.tokens.npy"))
        if not names:
            raise BadData(f"{folder} holds no packed rows", ("no-rows",))
        self._parts = [_Part.open(folder / name) for name in names]
        self._ends = np.cumsum([len(part.tokens) for part in self._parts]).tolist()
        self.length = int(self._parts[0].tokens.shape[1])

    def __len__(self) -> int:
        return int(self._ends[-1])

    def tokens(self, chosen: Sequence[int]) -> int:
        """Tokens in these rows that are no padding."""
        return int(sum((self._row(number).segments > 0).sum() for number in chosen))

    def batch(self, chosen: Sequence[int], pad_id: int, packed: bool) -> DictBatch:
        """The rows as they are, kept apart by their positions; or, for a model that cannot do that, a padded row per document."""
        rows = [self._row(number) for number in chosen]
        ids = np.stack([row.tokens for row in rows]).astype(np.int64)
        segments = np.stack([row.segments for row in rows]).astype(np.int64)
        positions = positions_of(segments)
        learned = (segments > 0) & (positions > 0)
        for place, row in enumerate(rows):
            if row.asked is not None:
                learned[place] &= row.asked
        labels = np.where(learned, ids, IGNORED)
        if packed:
            return _dict(labels, input_ids=ids, position_ids=positions)
        return _unpacked(ids, labels, segments, pad_id)

    def _row(self, number: int) -> _Part:
        part = bisect_right(self._ends, number)
        at = number - (self._ends[part - 1] if part else 0)
        tokens, segments, asked = self._parts[part]
        return _Part(tokens[at], segments[at], None if asked is None else asked[at])


class _Part(NamedTuple):
    """A file's rows, or one row. `asked` is None where every token is to be learned."""

    tokens: NDArray[np.int32]
    segments: NDArray[np.int32]
    asked: NDArray[np.bool_] | None

    @classmethod
    def open(cls, stem: Path) -> _Part:
        tokens, segments = (np.load(f"{stem}.{kind}.npy", mmap_mode="r", allow_pickle=False) for kind in ("tokens", "segments"))
        path = Path(f"{stem}.asked.npy")
        return cls(tokens, segments, np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None)


def positions_of(segments: NDArray[np.int64]) -> NDArray[np.int64]:
    """0, 1, 2, … from the start of each segment of each row, int64 [rows, length]."""
    columns = np.arange(segments.shape[1])[None, :]
    begins = np.ones(segments.shape, bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    return columns - np.maximum.accumulate(np.where(begins, columns, 0), axis=1)


class PackedFeed:
    """Step `n` takes rows (n-1)·batch to n·batch of all epochs' permutations laid end to end: the batch is never short, no row is left out."""

    def __init__(self, rows: PackedRows, recipe: Recipe, engine: Engine, pad_id: int, packed: bool) -> None:
        self._rows, self._recipe, self._engine, self._pad, self._packed = rows, recipe, engine, pad_id, packed
        self._orders: dict[int, NDArray[np.int64]] = {}

    def take(self, step: int) -> Taken:
        chosen = self.chosen(step)
        parts = share(chosen, self._engine.reader, self._engine.readers, self._engine.accumulation)
        batches = [self._rows.batch(part.tolist(), self._pad, self._packed) for part in parts]
        return Taken([*batches], len(chosen), self._rows.tokens(chosen.tolist()))

    def chosen(self, step: int) -> NDArray[np.int64]:
        """The rows of the global batch of `step`, int64 [batch]."""
        size, rows = self._recipe.batch_size, len(self._rows)
        places = np.arange((step - 1) * size, step * size)
        epochs = range(int(places[0]) // rows, int(places[-1]) // rows + 1)
        self._orders = {epoch: self._orders.get(epoch, _order(rows, self._recipe.seed, epoch)) for epoch in epochs}
        return np.array([self._orders[place // rows][place % rows] for place in places.tolist()], np.int64)


def steps_in(rows: int, batch: int, epochs: float, most: int | None) -> int:
    """Optimizer steps of `epochs` passes in whole batches. Raises BadData when the data does not fill one."""
    found = int(rows * epochs) // batch
    if found == 0:
        raise BadData(
            f"{rows} rows x {epochs:g} epochs do not fill one global batch of {batch}; lower training.batch_size or model.seq_length, "
            "raise training.epochs, or bring more data",
            ("too-few-rows",),
        )
    return min(found, most or found)


class PackedJudge:
    """Mean loss per labelled token of the validation rows, shared out over the ranks; all forward as often, since ZeRO 3 gathers in step."""

    metric = "loss"
    higher = False

    def __init__(self, rows: PackedRows, objective: Objective, pad_id: int, packed: bool, most: int = 512) -> None:
        self._rows, self._objective, self._pad, self._packed = rows, objective, pad_id, packed
        self._chosen = np.linspace(0, len(rows) - 1, min(most, len(rows))).astype(int).tolist()

    def score(self, engine: Engine, step: int) -> float:
        sums = np.zeros(2)
        mine = self._chosen[engine.reader :: engine.readers]
        for place in range(math.ceil(len(self._chosen) / engine.readers)):
            batch = self._rows.batch([mine[min(place, len(mine) - 1)] if mine else self._chosen[0]], self._pad, self._packed)
            logits = engine.logits(batch)
            items = self._objective.items(batch)
            if place < len(mine) and items:
                sums += (float(self._objective.loss(logits, batch, 1.0)), items)
        total, count = engine.add(sums)
        if count == 0:
            raise BadData("the validation rows hold no labelled token", ("no-rows",))
        if not math.isfinite(total):
            raise Diverged(f"diverged: the validation loss is {total} at step {step}; lower training.learning_rate")
        return float(total / count)


def _order(rows: int, seed: int, epoch: int) -> NDArray[np.int64]:
    return np.random.default_rng((seed, epoch)).permutation(rows)


def _unpacked(ids: NDArray[np.int64], labels: NDArray[np.int64], segments: NDArray[np.int64], pad_id: int) -> DictBatch:
    pieces = [
        (ids[row][segments[row] == number], labels[row][segments[row] == number])
        for row in range(len(ids))
        for number in range(1, int(segments[row].max()) + 1)
    ]
    width = -(-max(len(piece) for piece, _ in pieces) // MULTIPLE) * MULTIPLE
    out, asked = np.full((len(pieces), width), pad_id, np.int64), np.full((len(pieces), width), IGNORED, np.int64)
    mask = np.zeros((len(pieces), width), np.int64)
    for place, (piece, wanted) in enumerate(pieces):
        out[place, : len(piece)], asked[place, : len(piece)], mask[place, : len(piece)] = piece, wanted, 1
    return _dict(asked, input_ids=out, attention_mask=mask)


def _dict(labels: NDArray[np.int64], **given: NDArray[np.int64]) -> DictBatch:
    return DictBatch({name: torch.from_numpy(value) for name, value in given.items()}, torch.from_numpy(labels))
