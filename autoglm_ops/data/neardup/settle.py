"""Phase four, one task: which rows go. A byte a document, and the pairs of one shard at a time."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple
from uuid import uuid4

import numpy as np
import polars as pl
from numpy.typing import NDArray

from autoglm_ops.data.neardup.sign import ROW_BITS, Keys, shards_signed
from autoglm_ops.data.neardup.verify import of_shard
from autoglm_ops.data.steps.compiled import compiled

REASONS = {1: "duplicate", 2: "near-duplicate"}
GONE = pl.Schema({"row": pl.Int64, "reason": pl.String, "of_shard": pl.Int64, "of_row": pl.Int64})
"""A dropped row (0-based in its shard), why, and which document it repeats."""


class Settled(NamedTuple):
    """Counts over the corpus; documents = kept + the sum of `dropped`."""

    documents: int
    dropped: dict[str, int]

    @property
    def kept(self) -> int:
        return self.documents - sum(self.dropped.values())


def settle(work: Path) -> Settled:
    """Write `gone/<shard>.parquet` (GONE, by row) for every signed shard, in corpus order.

    A copy goes; another document goes when it is similar to an earlier one that stays.
    """
    heights = [len(np.load(path / "starts.npy", mmap_mode="r")) - 1 for path in shards_signed(work)]
    base = np.cumsum([0, *heights]).astype(np.int64)
    state = np.zeros(base[-1], np.uint8)
    (work / "gone").mkdir(exist_ok=True)
    for shard in range(len(heights)):
        copies, similar = of_shard(work, "copies", shard), np.load(work / "similar" / f"{shard:06d}.npy", allow_pickle=False)
        state[_index(copies[0], base)] = 1
        _drop(state, _index(similar[0], base), _index(similar[1], base), chosen := np.zeros(similar.shape[1], np.bool_))
        frame = pl.concat([_frame(copies, 1), _frame(similar[:, chosen], 2)]).sort("row")
        part = work / "gone" / f"{shard:06d}.{uuid4().hex}.part"
        frame.write_parquet(part, compression="zstd")
        os.replace(part, work / "gone" / f"{shard:06d}.parquet")
    counts = np.bincount(state, minlength=3)
    return Settled(len(state), {reason: int(counts[code]) for code, reason in REASONS.items() if counts[code]})


def gone(work: Path, shard: int) -> pl.DataFrame:
    """What `settle` wrote for `shard` (GONE)."""
    return pl.read_parquet(work / "gone" / f"{shard:06d}.parquet", schema=GONE)


def _index(names: Keys, base: NDArray[np.int64]) -> NDArray[np.int64]:
    return base[(names >> ROW_BITS).astype(np.int64)] + (names & np.uint64(0xFFFFFFFF)).astype(np.int64)


def _frame(pairs: Keys, code: int) -> pl.DataFrame:
    shards, rows = (pairs >> ROW_BITS).astype(np.int64), (pairs & np.uint64(0xFFFFFFFF)).astype(np.int64)
    columns = {"row": rows[0], "reason": [REASONS[code]] * pairs.shape[1], "of_shard": shards[1], "of_row": rows[1]}
    return pl.DataFrame(columns, schema=GONE)


@compiled
def _drop(state: NDArray[np.uint8], later: NDArray[np.int64], earlier: NDArray[np.int64], chosen: NDArray[np.bool_]) -> None:
    """`later` is sorted, so an earlier document's fate is known when it is asked for."""
    for pair in range(len(later)):
        if state[later[pair]] == 0 and state[earlier[pair]] == 0:
            state[later[pair]] = 2
            chosen[pair] = True
