"""Some documents of a dataset that stand for all: those whose ids hash lowest."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from autoglm_ops.data.build.folders import frames
from autoglm_ops.data.flow import DOCUMENT

ROWS = 50_000
CHARACTERS = (
    32 << 20
)  # of text that a sample holds, however long the documents are: Great Expectations takes ten bytes for each


def size(rows: int, characters: int) -> int:
    """How many of `rows` documents with so many characters in all are looked at. Pure."""
    return max(min(ROWS, rows, CHARACTERS * rows // max(characters, 1)), 1)


def sample(files: Sequence[Path], rows: int, most: int, seed: int) -> dict[str, list[Any]]:
    """The columns of about `most` of the `rows` documents in `files`, in their order; of all when there are no more.

    The id alone decides, so documents with one id are drawn together, and an id that stands twice is seen as one.
    """
    last = np.iinfo(np.uint64).max if rows <= most else _limit(files, most, seed)
    drawn: dict[str, list[Any]] = {name: [] for name in DOCUMENT}
    for path in files:
        for frame in frames(path):
            chosen = frame.filter(pl.Series(_keys(frame["id"], seed) <= last)) if rows > most else frame
            for name, values in drawn.items():
                values.extend(chosen[name].to_list())  # objects of our own: a filtered frame keeps its whole block alive
    return drawn


def _limit(files: Sequence[Path], most: int, seed: int) -> np.uint64:
    """The `most`-th lowest key."""
    lowest = np.empty(0, np.uint64)
    for path in files:
        lowest = np.concatenate([lowest, _keys(pl.read_parquet(path, columns=["id"])["id"], seed)])
        if len(lowest) > most:
            lowest = np.partition(lowest, most - 1)[:most]
    return np.uint64(lowest.max())


def _keys(ids: pl.Series, seed: int) -> NDArray[np.uint64]:
    salt = seed.to_bytes(8, "big", signed=True)
    digests = b"".join(hashlib.blake2b((name or "").encode(), digest_size=8, key=salt).digest() for name in ids)
    return np.frombuffer(digests, "<u8")
