"""Two datasets, text by text: what both have, what went, what came. Eight bytes a text are held."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray


class Difference(NamedTuple):
    """Distinct texts of two datasets, and their documents by source and by label (before, after)."""

    common: int
    removed: int
    added: int
    sources: dict[str, tuple[int, int]]
    labels: dict[str, tuple[int, int]]


def compare(before: Iterable[pl.DataFrame], after: Iterable[pl.DataFrame]) -> Difference:
    """Over frames of DOCUMENT. Texts are told apart by 64 bits of BLAKE2b: among 10^8 of them one pair in 3,700 runs collides."""
    old, new = _Side(before), _Side(after)
    common = len(np.intersect1d(old.keys, new.keys, assume_unique=True))
    return Difference(
        common,
        len(old.keys) - common,
        len(new.keys) - common,
        _paired(old.sources, new.sources),
        _paired(old.labels, new.labels),
    )


class _Side:
    def __init__(self, frames: Iterable[pl.DataFrame]) -> None:
        self.sources: Counter[str] = Counter()
        self.labels: Counter[str] = Counter()
        keys = [np.empty(0, np.uint64)]
        for frame in frames:
            keys.append(_keys(frame["text"]))
            self.sources.update(dict(frame["source"].fill_null("").value_counts().iter_rows()))
            self.labels.update(dict(frame["label"].drop_nulls().value_counts().iter_rows()))
        self.keys = np.unique(np.concatenate(keys))


def _keys(texts: pl.Series) -> NDArray[np.uint64]:
    digests = (hashlib.blake2b((text or "").encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(b"".join(digests), "<u8")


def _paired(old: Counter[str], new: Counter[str]) -> dict[str, tuple[int, int]]:
    return {name: (old[name], new[name]) for name in sorted(old.keys() | new.keys())}
