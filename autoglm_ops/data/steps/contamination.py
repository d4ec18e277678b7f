"""Training text that holds what validation, the gate or a test is about to ask (spec D7)."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from autoglm_ops.data.flow import Sifted, divide
from autoglm_ops.data.neardup.shingles import shingles
from autoglm_ops.data.steps.compiled import compiled, flat
from autoglm_ops.errors import Tampered

LONG, SHORT = 13, 5


@dataclass(frozen=True)
class Protected:
    """The word n-grams of the texts that nobody may train on: sorted uint32 hashes of the 13-grams and of the 5-grams."""

    long: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))
    short: NDArray[np.uint32] = field(default_factory=lambda: np.empty(0, np.uint32))

    @classmethod
    def of(cls, texts: Iterable[pl.Series]) -> Protected:
        """From columns of texts. 8 bytes a word; a text shorter than an n-gram counts whole."""
        flats = [flat(series) for series in texts]
        long, short = ([shingles(one, ngram).hashes for one in flats] for ngram in (LONG, SHORT))
        empty = np.empty(0, np.uint32)
        return cls(np.unique(np.concatenate([empty, *long])), np.unique(np.concatenate([empty, *short])))

    def digest(self) -> str:
        """sha256 of both arrays: the same protected texts, in whatever order, are the same digest."""
        return hashlib.sha256(len(self.long).to_bytes(8, "little") + self.long.tobytes() + self.short.tobytes()).hexdigest()

    def save(self, path: Path) -> None:
        """As npz, atomically."""
        part = path.with_name(f"{path.name}.{os.getpid()}.part")
        with part.open("wb") as file:
            np.savez(file, long=self.long, short=self.short)
        os.replace(part, path)

    @classmethod
    def load(cls, path: Path, digest: str) -> Protected:
        """Raises Tampered when the file is torn or another one: whoever asked for protection gets it, or an error."""
        try:
            with np.load(path, allow_pickle=False) as arrays:
                found = cls(arrays["long"], arrays["short"])
        except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise Tampered(f"{path} cannot be read ({error}); remove its folder and build again") from error
        if found.digest() != digest:
            raise Tampered(f"{path} is not what the build was planned with; remove its folder and build again")
        return found


@dataclass(frozen=True)
class Contamination:
    """Drops a document that shares `min_long` 13-grams with a protected text (Brown et al. 2020, appendix C: one is enough), or of
    whose 5-grams `max_share` are protected ones: a near-duplicate of Jaccard 0.8 shares at least 0.8. Reason: `contaminated`.

    Words are runs of letters and digits, in lower case; CJK characters one by one. Raise `min_long` where boilerplate that both sides
    carry is worth keeping.
    """

    protected: Protected = field(default_factory=Protected)
    min_long: int = 1
    max_share: float = 0.7

    name: ClassVar[str] = "contamination"

    def __call__(self, frame: pl.DataFrame) -> Sifted:
        texts = flat(frame["text"])
        long, _ = _hits(*shingles(texts, LONG), self.protected.long)
        short, total = _hits(*shingles(texts, SHORT), self.protected.short)
        bad = (long >= self.min_long) | ((total > 0) & (short >= self.max_share * total))
        return divide(frame, pl.lit(pl.Series(bad).replace_strict({True: "contaminated", False: None}, return_dtype=pl.String)))


@compiled
def _hits(
    hashes: NDArray[np.uint32], offsets: NDArray[np.int64], known: NDArray[np.uint32]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Per text: how many shingles are among `known` (sorted), and how many it has."""
    found, total = np.zeros(len(offsets) - 1, np.int64), np.diff(offsets)
    if len(known):
        for row in range(len(offsets) - 1):
            for value in hashes[offsets[row] : offsets[row + 1]]:
                place = np.searchsorted(known, value)
                found[row] += place < len(known) and known[place] == value
    return found, total
