"""A shard's documents, from wherever its files are."""

from __future__ import annotations

from collections.abc import Iterator

import polars as pl

from autoglm_ops.data.readers.blocks import Opened
from autoglm_ops.data.readers.limits import Limits, Rejected
from autoglm_ops.data.readers.names import FORMATS, kind_of
from autoglm_ops.data.readers.places import Location, locate
from autoglm_ops.data.readers.shards import Part, Shard
from autoglm_ops.data.readers.unpack import Unpacked
from autoglm_ops.data.rows import Shape
from autoglm_ops.errors import UsageError


def read(shard: Shard, location: str, shape: Shape, limits: Limits) -> Iterator[pl.DataFrame | Rejected]:
    """Frames of DOCUMENT (about 8 MiB of text each) and rejects of every part of `shard`, in order.

    What was read = the frames' rows + the rejects. Raises BadData for a file that is wrong as a whole (empty, marked as UTF-16, without
    the text's column, damaged, a bomb), Tampered for one that is not as it was listed, TryAgain when its server is away, BudgetSpent
    over `limits`.
    """
    place = locate(location, limits)
    for part in shard.parts:
        yield from _read(part, place, shape, limits)


def _read(part: Part, place: Location, shape: Shape, limits: Limits) -> Iterator[pl.DataFrame | Rejected]:
    name = part.blob.name
    kind = kind_of(name)
    if kind is None:
        raise UsageError(f"{name}: no reader for this name; known: {', '.join(FORMATS.names())}")
    if part.cut and not (kind.cuttable and limits.document == "line"):
        raise UsageError(f"{name}: bytes {part.start} to {part.stop} of it are no documents; plan the shards for whole files")
    with place.opened(part) as raw:
        stream = Unpacked(raw, kind.packing, name, limits) if kind.packing else raw
        yield from FORMATS.get(kind.form)(Opened(name, stream, part.start, part.stop, part.cut, shape, limits))
