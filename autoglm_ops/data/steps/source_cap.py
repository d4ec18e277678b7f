"""An absolute cap on the documents of one source: a share would let who floods the corpus have more of it (threats F07)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import polars as pl

from autoglm_ops.data.flow import Sifted, divide

LOWEST = pl.Schema({"source": pl.String, "key": pl.UInt64})
# Not `line`: in a file that was cut it counts from the cut (readers.blocks), and the same build cut otherwise would draw otherwise.
_NAME = [pl.col(name).fill_null("") for name in ("id", "source", "text")]


def keys(frame: pl.DataFrame, seed: int = 0) -> pl.Series:
    """A UInt64 per document, evenly spread, that hangs on `seed`, id, source and text alone: neither order nor shard moves it."""
    salt = seed.to_bytes(8, "big", signed=True)
    named = frame.select(pl.concat_str(_NAME, separator="\0")).to_series()
    digests = b"".join(hashlib.blake2b(name.encode(), digest_size=8, key=salt).digest() for name in named)
    return pl.Series("key", np.frombuffer(digests, ">u8").astype(np.uint64))


def lowest(frames: Iterable[pl.DataFrame], cap: int, seed: int = 0) -> pl.DataFrame:
    """The `cap` + 1 lowest keys of each source (LOWEST). Per shard first; of the shards' results together with `merged`."""
    held = pl.DataFrame(schema=LOWEST)
    for frame in frames:
        held = merged([held, frame.select(pl.col("source").fill_null(""), keys(frame, seed))], cap)
    return held


def merged(parts: Iterable[pl.DataFrame], cap: int) -> pl.DataFrame:
    """The same over several results of `lowest`. At most (`cap` + 1) rows a source."""
    return pl.concat(parts).sort("source", "key").group_by("source", maintain_order=True).head(cap + 1).select(LOWEST.names())


def limits(found: pl.DataFrame, cap: int) -> dict[str, int]:
    """For each source that has more than `cap` documents the key below which they stay."""
    over = found.group_by("source", maintain_order=True).agg(pl.col("key").sort().get(cap, null_on_oob=True)).drop_nulls("key")
    return dict(zip(over["source"].to_list(), over["key"].to_list(), strict=True))


@dataclass(frozen=True)
class SourceCap:
    """Drops the documents at or above their source's limit: `cap` stay, whatever the order of the shards. Reason: `source-cap`.

    Documents that are equal in all of these have one key: when the limit falls on them all of them go, so a cap is never exceeded.
    """

    limits: Mapping[str, int] = field(default_factory=dict)
    seed: int = 0

    name: ClassVar[str] = "source-cap"

    def __call__(self, frame: pl.DataFrame) -> Sifted:
        if not self.limits:
            return divide(frame, pl.lit(None, pl.String))
        limit = frame["source"].fill_null("").replace_strict(dict(self.limits), default=None, return_dtype=pl.UInt64)
        over = (keys(frame, self.seed) >= limit).fill_null(False)
        return divide(frame, pl.lit(over.replace_strict({True: self.name, False: None}, return_dtype=pl.String)))
