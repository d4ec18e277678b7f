"""Which shard reads what: files packed or cut to a size, by names and sizes alone.

A shard can be read anywhere, in any order, and again: it holds no state and meets no other shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from autoglm_ops.data.readers.names import kind_of
from autoglm_ops.errors import UsageError


class Blob(NamedTuple):
    """One file of a location. `name` is relative to it, `size` in bytes, `version` what changes when the bytes do: sha256 or ETag."""

    name: str
    size: int
    version: str


class Part(NamedTuple):
    """Bytes [start, stop) of a blob. Cut parts own the lines that start in them, however far the last one runs."""

    blob: Blob
    start: int
    stop: int

    @property
    def cut(self) -> bool:
        """Whether another part holds the rest of the blob."""
        return (self.start, self.stop) != (0, self.blob.size)


class Shard(NamedTuple):
    """A unit of work, counted from 0."""

    number: int
    parts: tuple[Part, ...]

    @property
    def size(self) -> int:
        """Bytes to be read, packed as they are stored."""
        return sum(part.stop - part.start for part in self.parts)


def plan(blobs: Iterable[Blob], most: int, cut: bool = True) -> tuple[Shard, ...]:
    """Shards of at most `most` bytes over `blobs`, sorted by name. A file that cannot be cut and is larger is a shard of its own.

    Plain JSONL and text are cut into equal byte ranges, unless `cut` is off (a text file that is one document, a file over HTTP);
    packed files, CSV (a quoted field may hold line ends) and Parquet never are.
    """
    if most < 1:
        raise UsageError(f"a shard must hold at least one byte, but got {most}; choose a size such as {256 << 20}")
    parts = [part for blob in sorted(blobs) for part in _parts(blob, most if cut else blob.size)]
    return tuple(Shard(number, group) for number, group in enumerate(_packed(parts, most)))


def _parts(blob: Blob, most: int) -> Iterator[Part]:
    kind = kind_of(blob.name)
    count = max(-(-blob.size // most), 1) if kind and kind.cuttable and blob.size else 1
    for place in range(count):
        yield Part(blob, blob.size * place // count, blob.size * (place + 1) // count)


def _packed(parts: Iterable[Part], most: int) -> Iterator[tuple[Part, ...]]:
    """Neighbours together while they fit."""
    group: list[Part] = []
    size = 0
    for part in parts:
        length = part.stop - part.start
        if group and size + length > most:
            yield tuple(group)
            group, size = [], 0
        group.append(part)
        size += length
    if group:
        yield tuple(group)
