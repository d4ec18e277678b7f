"""Phase one, a task a shard: what the later phases need to know of each document, in files that they read in slices."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

import numpy as np
import polars as pl
from numpy.typing import NDArray

from autoglm_ops.data.build.folders import made_whole
from autoglm_ops.data.neardup.options import Options
from autoglm_ops.data.neardup.shingles import band_keys, shingles
from autoglm_ops.data.steps.compiled import Flat, flat

ROW_BITS = np.uint64(32)
Keys = NDArray[np.uint64]


def sign(frames: Iterable[pl.DataFrame], shard: int, work: Path, options: Options) -> Path:
    """Write `work/signed/<shard>/` from the `text` column of `frames`, which are shard number `shard` in order. Returns the folder.

    `exact.<run>.npy` uint64 [3, n]: content hash (two halves) and document, sorted by hash. `bands.<run>.npy` uint64 [3, n]: band
    key, first half of the content hash, document, sorted by key. A document is shard << 32 | row. `shingles.u32` holds the shingle
    hashes, `starts.npy` int64 where each row's begin. A folder that is there is complete, and is left as it is.
    """
    folder = work / "signed" / f"{shard:06d}"
    if folder.exists():
        return folder
    with made_whole(folder) as part:
        _write(frames, shard, part, options)
    return folder


def shards_signed(work: Path) -> list[Path]:
    """The folders of all signed shards, in their order."""
    return sorted(path for path in (work / "signed").iterdir() if path.name.isdigit())


def documents(shard: int, rows: NDArray[np.int64]) -> Keys:
    """The numbers of rows of one shard: their order is the corpus order."""
    return np.uint64(shard) << ROW_BITS | rows.astype(np.uint64)


def save(path: Path, array: NDArray[np.generic]) -> None:
    """Whole or not at all, and on disk before it has its name."""
    part = path.with_name(f"{path.name}.{uuid4().hex}.part")  # of its own: a retry may meet a first try that still lives
    with part.open("wb") as file:
        np.save(file, array, allow_pickle=False)
        file.flush()
        os.fsync(file.fileno())
    os.replace(part, path)


def _write(frames: Iterable[pl.DataFrame], shard: int, folder: Path, options: Options) -> None:
    starts: list[NDArray[np.int64]] = [np.zeros(1, np.int64)]
    exact, bands = _Runs(folder, "exact", options.memory // 8), _Runs(folder, "bands", options.memory // 4)
    row = 0
    with (folder / "shingles.u32").open("wb") as file:
        for texts in _pieces(frames, options.memory // 16):
            sets = shingles(texts, options.ngram)
            sets.hashes.tofile(file)
            names = documents(shard, np.arange(row, row + len(texts.offsets) - 1))
            content = _content(texts)
            exact.add(np.stack([content[:, 0], content[:, 1], names]))
            keys = band_keys(sets, options)
            filled = np.flatnonzero(np.diff(sets.offsets))
            each = [np.repeat(column[filled], options.bands) for column in (content[:, 0], names)]
            bands.add(np.stack([keys[filled].reshape(-1), *each]))
            starts.append(starts[-1][-1] + sets.offsets[1:])
            row += len(texts.offsets) - 1
        file.flush()
        os.fsync(file.fileno())
    exact.flush()
    bands.flush()
    save(folder / "starts.npy", np.concatenate(starts))


def _pieces(frames: Iterable[pl.DataFrame], size: int) -> Iterator[Flat]:
    """The texts, cut so that a piece has at most `size` bytes or one text."""
    for frame in frames:
        texts = frame["text"]
        bulk = texts.fill_null("").str.len_bytes().cum_sum().to_numpy()
        at = 0
        while at < len(texts):
            before = bulk[at - 1] if at else 0
            end = max(at + 1, int(np.searchsorted(bulk, before + size, "right")))
            yield flat(texts[at:end])
            at = end


def _content(texts: Flat) -> Keys:
    """128 bits of BLAKE2b of each text's bytes, as two uint64: nobody can make a text that passes for another's copy."""
    view, places = texts.data.data, texts.offsets.tolist()
    digests = (hashlib.blake2b(view[begin:end], digest_size=16).digest() for begin, end in pairwise(places))
    return np.frombuffer(b"".join(digests), ">u8").reshape(-1, 2).astype(np.uint64)


class _Runs:
    """Columns that are written as sorted runs of about `size` bytes, so that a shard of any length fits."""

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self._folder, self._name, self._size = folder, name, size
        self._held: list[Keys] = []
        self._written = 0

    def add(self, columns: Keys) -> None:
        self._held.append(columns)
        if sum(part.nbytes for part in self._held) > self._size:
            self.flush()

    def flush(self) -> None:
        if self._held:
            columns = np.concatenate(self._held, axis=1)
            self._held = []
            save(self._folder / f"{self._name}.{self._written:04d}.npy", columns[:, np.argsort(columns[0], kind="stable")])
            self._written += 1
