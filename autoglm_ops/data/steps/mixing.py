"""Sources mixed by weight: each is thinned by a draw that its documents' own hashes make, so it comes out the same anywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl

from autoglm_ops.data.flow import Sifted, divide
from autoglm_ops.data.steps.source_cap import keys
from autoglm_ops.errors import SettingsError


def rates(counts: Mapping[str, int], weights: Mapping[str, float]) -> dict[str, float]:
    """The share of each source to keep so that what is kept is in proportion to `weights`, and as much as can be.

    counts: documents per source. A source that `weights` does not name has weight 0 and goes. Raises SettingsError when a weight is
    negative or not finite, or names a source that the corpus has nothing of.
    """
    for source, weight in weights.items():
        if not 0 <= weight < float("inf"):
            raise SettingsError(f"mix.weights.{source} = {weight} must be a number from 0 on")
        if weight and not counts.get(source):
            raise SettingsError(
                f"mix.weights.{source} = {weight}, but no document is of that source; sources: {sorted(counts)}"
            )
    wanted = {source: weight for source, weight in weights.items() if weight}
    if not wanted:
        raise SettingsError("mix.weights gives no source a weight above 0; that would drop every document")
    whole = min(counts[source] / weight for source, weight in wanted.items())
    return {source: min(1.0, whole * wanted.get(source, 0.0) / count) for source, count in counts.items() if count}


@dataclass(frozen=True)
class Mix:
    """Keeps each document with its source's rate, by its hash. A source without a rate stays whole. Reason: `mix`."""

    rates: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0

    name: ClassVar[str] = "mix"

    def __call__(self, frame: pl.DataFrame) -> Sifted:
        rate = frame["source"].replace_strict(dict(self.rates), default=1.0, return_dtype=pl.Float64)
        # 53 bits of the key: exact as a float, so rate 1 keeps all and rate 0 nothing. The seed is apart from that of `source_cap`.
        drawn = (keys(frame, self.seed + 1) // 2**11).cast(pl.Float64) / 2**53
        return divide(frame, pl.lit((drawn >= rate).replace_strict({True: self.name, False: None}, return_dtype=pl.String)))
