"""Phase three, a task a shard: the pairs whose shingle sets are as similar as asked, each set compared whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.data.neardup.match import in_order
from autoglm_ops.data.neardup.options import Options
from autoglm_ops.data.neardup.shingles import jaccards
from autoglm_ops.data.neardup.sign import ROW_BITS, Keys, save


def verify(shard: int, work: Path, options: Options) -> None:
    """The pairs whose later document is in shard number `shard` -> `similar/<shard>.npy` uint64 [2, n], those at or above the threshold."""
    pairs = of_shard(work, "pairs", shard)
    kept = [np.empty((2, 0), np.uint64)]
    for batch in _batches(pairs, work, options.memory):
        names, places = np.unique(batch, return_inverse=True)
        left, right = places.reshape(2, -1)
        kept.append(batch[:, jaccards(*_sets(names, work), left, right) >= options.threshold])
    (work / "similar").mkdir(exist_ok=True)
    save(work / "similar" / f"{shard:06d}.npy", np.concatenate(kept, axis=1))


def of_shard(work: Path, kind: str, shard: int) -> Keys:
    """What `match` found for the later documents in `shard`, over all partitions: sorted, each pair once."""
    parts = [np.empty((2, 0), np.uint64)]
    low, high = np.uint64(shard) << ROW_BITS, np.uint64(shard + 1) << ROW_BITS
    for path in sorted((work / kind).glob("*.npy")):
        pairs = np.load(path, mmap_mode="r", allow_pickle=False)
        begin, end = np.searchsorted(pairs[0], low), np.searchsorted(pairs[0], high)
        parts.append(np.array(pairs[:, begin:end]))
    return in_order(np.concatenate(parts, axis=1))


def _batches(pairs: Keys, work: Path, memory: int) -> Iterator[Keys]:
    """Runs of pairs whose sets fit in `memory` three times: read, sorted, and joined. One pair at least."""
    sizes = _sizes(pairs[0], work) + _sizes(pairs[1], work)
    bulk = np.cumsum(12 * sizes + 64)
    at = 0
    while at < pairs.shape[1]:
        before = bulk[at - 1] if at else 0
        end = max(at + 1, int(np.searchsorted(bulk, before + memory, "right")))
        yield pairs[:, at:end]
        at = end


def _sizes(names: Keys, work: Path) -> NDArray[np.int64]:
    out = np.empty(len(names), np.int64)
    for places, rows, folder in _by_shard(names, work):
        starts = np.load(folder / "starts.npy", mmap_mode="r", allow_pickle=False)
        out[places] = starts[rows + 1] - starts[rows]
    return out


def _sets(names: Keys, work: Path) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    """The shingles of `names` (sorted) end to end, and where each one's begin: only their own bytes are read."""
    parts, sizes = [np.empty(0, np.uint32)], [np.zeros(1, np.int64)]
    for _, rows, folder in _by_shard(names, work):
        starts = np.load(folder / "starts.npy", mmap_mode="r", allow_pickle=False)
        with (folder / "shingles.u32").open("rb") as file:
            for begin, end in zip(starts[rows].tolist(), starts[rows + 1].tolist(), strict=True):
                file.seek(4 * begin)
                parts.append(np.fromfile(file, np.uint32, end - begin))
        sizes.append(starts[rows + 1] - starts[rows])
    return np.concatenate(parts), np.cumsum(np.concatenate(sizes))


def _by_shard(names: Keys, work: Path) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], Path]]:
    """Per shard that occurs: where in `names`, which rows, and the shard's folder."""
    shards = (names >> ROW_BITS).astype(np.int64)
    rows = (names & np.uint64(0xFFFFFFFF)).astype(np.int64)
    for shard in np.unique(shards).tolist():
        places = np.flatnonzero(shards == shard)
        yield places, rows[places], work / "signed" / f"{shard:06d}"
