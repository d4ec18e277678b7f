"""The engine's seam: documents go by as Polars frames; a step turns one frame into what it keeps and what it drops, each with a reason.

The shape is datatrove's (iterator in, iterator out, a reason for every dropped document), over frames instead of single documents.
A step never looks beyond its frame, so shards can run anywhere and a frame's size bounds the memory. What needs the whole corpus
(duplicates, source caps) has phases of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol

import polars as pl

DOCUMENT = pl.Schema(
    {"id": pl.String, "text": pl.String, "label": pl.String, "timestamp": pl.String, "source": pl.String, "line": pl.Int64}
)
"""One document a row. `label` and `timestamp` (an ISO day) may be null; `line` is the 1-based line or row in file `source`."""

DROPPED = pl.Schema({"id": pl.String, "source": pl.String, "line": pl.Int64, "reason": pl.String})
"""One dropped document a row. `reason` is one word that can be counted."""


class Sifted(NamedTuple):
    """What a step made of a frame: `kept` (DOCUMENT) and `dropped` (DROPPED). Their heights sum to the frame's."""

    kept: pl.DataFrame
    dropped: pl.DataFrame


class Step(Protocol):
    """One filter or transform. Deterministic, without state between frames; built from its section of the settings."""

    @property
    def name(self) -> str: ...

    def __call__(self, frame: pl.DataFrame) -> Sifted: ...


def divide(frame: pl.DataFrame, reason: pl.Expr) -> Sifted:
    """Split `frame` by an expression that is null for what stays and a reason word for what goes."""
    judged = frame.with_columns(reason.cast(pl.String).alias("reason"))
    gone = judged["reason"].is_not_null()
    return Sifted(judged.filter(~gone).select(DOCUMENT.names()), judged.filter(gone).select(DROPPED.names()))


def through(frames: Iterable[pl.DataFrame], steps: Sequence[Step]) -> Iterator[Sifted]:
    """Each frame through all steps in order; what any of them dropped, together."""
    for frame in frames:
        kept, gone = frame, [pl.DataFrame(schema=DROPPED)]
        for step in steps:
            kept, dropped = step(kept)
            gone.append(dropped)
        yield Sifted(kept, pl.concat(gone))
