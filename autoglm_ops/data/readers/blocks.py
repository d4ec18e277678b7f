"""A stream as blocks of whole lines: split on LF bytes alone, in constant memory (threats F03, F04).

Where a line is. `offset` is the byte where it starts, in the file or, of a packed file, in what it unpacks to; a document without an
id of its own is named by it, so that its id is the same however the file is cut into shards. `line` is the 1-based line; where a file
is cut nobody has counted the lines before a part, and `line` is the offset there, so that it still orders the file's documents.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import polars as pl

from autoglm_ops.data.readers.limits import Limits, Rejected
from autoglm_ops.data.rows import RAW_CHARS, Shape
from autoglm_ops.errors import BadData

BLOCK = 8 << 20
LINES = 1 << 16
_STEP = 64 << 10
_MARKS = {
    b"\xef\xbb\xbf": "a UTF-8 byte order mark",
    b"\xff\xfe": "a UTF-16 byte order mark",
    b"\xfe\xff": "a UTF-16 byte order mark",
}


class Stream(Protocol):
    """Bytes in order. A short read is no end; an empty one is."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Opened:
    """One part of a file, ready to be read by its format. `stream` stands at the byte before `start`, or at 0."""

    name: str
    stream: Stream
    start: int
    stop: int | None
    cut: bool
    shape: Shape
    limits: Limits


class Block(NamedTuple):
    """Whole lines, each with its LF; only the stream's last line may lack it (`ended` is False then)."""

    data: bytes
    offset: int
    line: int
    ended: bool


class TruncatedError(Exception):
    """The stream ended before its packing did. What it gave before is good."""


def blocks(source: Opened) -> Iterator[Block | Rejected]:
    """Every line that starts in [start, stop), about BLOCK bytes at a time, and a reject for each line that is too long.

    A stream that ends too early gives the whole lines before the cut, then one reject "truncated" for what is left.
    Raises BadData when the file is empty or begins with a byte order mark.
    """
    cutter = _Cutter(source)
    try:
        yield from cutter.run()
    except TruncatedError:
        yield cutter.rejected("truncated")


class _Cutter:
    """`held` are bytes that were read and not yielded; they start at `offset`, on line `line`."""

    def __init__(self, source: Opened) -> None:
        self._source = source
        self._stop = source.stop if source.cut else None
        self.held = b""
        self.offset = max(source.start - 1, 0) if source.cut else 0
        self.line = 1

    def run(self) -> Iterator[Block | Rejected]:
        if self.offset == 0:
            self._check_start()
        if self._source.cut and self._source.start:
            self._skip_line()
        while not self._done():
            end = self._few(self._end_of_lines())
            if end:
                yield from self._take(end)
            elif len(self.held) > self._source.limits.line:
                yield self.rejected("too-long")
                self._skip_line()
            elif not self._more():
                yield from self._rest()
                return

    def rejected(self, reason: str) -> Rejected:
        place = self.offset if self._source.cut else self.line
        return Rejected.of(self._source.name, place, self.offset, reason, self.held[: 4 * RAW_CHARS])

    def _done(self) -> bool:
        return self._stop is not None and self.offset >= self._stop

    def _end_of_lines(self) -> int:
        """How many of the held bytes are whole lines that start before the stop."""
        if self._stop is not None and self.offset + len(self.held) >= self._stop:
            last = self.held.find(b"\n", self._stop - 1 - self.offset) + 1
            if last:
                return last
        return self.held.rfind(b"\n") + 1

    def _few(self, end: int) -> int:
        """`end`, or less of it, so that a block has at most LINES lines: eight million empty ones would fill the memory with rejects."""
        while end and self.held.count(b"\n", 0, end) > LINES:
            end = self.held.rfind(b"\n", 0, end // 2) + 1 or self.held.find(b"\n") + 1
        return end

    def _take(self, end: int) -> Iterator[Block]:
        data, self.held = self.held[:end], self.held[end:]
        yield Block(data, self.offset, self.line, True)
        self.line += data.count(b"\n")
        self.offset += end

    def _rest(self) -> Iterator[Block]:
        if self.held:
            yield Block(self.held, self.offset, self.line, False)

    def _more(self) -> bool:
        """Read on, up to the stop in one go and in small steps beyond it."""
        size = BLOCK
        if self._stop is not None:
            size = min(BLOCK, max(self._stop - self.offset - len(self.held), _STEP))
        piece = self._source.stream.read(size)
        self.held += piece
        return bool(piece)

    def _skip_line(self) -> None:
        """Go past the next LF, keeping nothing of what is before it, and no further than the stop: who owns what starts behind it finds
        that himself, and a line over a thousand shards would be read a thousand times to its end."""
        while (end := self.held.find(b"\n") + 1) == 0:
            self.offset += len(self.held)
            self.held = b""
            if self._done() or not self._more():
                return
        self.held = self.held[end:]
        self.offset += end
        self.line += 1

    def _check_start(self) -> None:
        while len(self.held) < 3 and self._more():
            pass
        if not self.held:
            raise BadData(
                f"{self._source.name} is empty (0 bytes); give a file with at least one row, or remove it", ("empty-file",)
            )
        for mark, what in _MARKS.items():
            if self.held.startswith(mark):
                raise BadData(f"{self._source.name} begins with {what}; save it as UTF-8 without one", ("byte-order-mark",))


def judged_blocks(
    source: Opened, judge: Callable[[Block, Opened], tuple[pl.DataFrame, list[Rejected]]]
) -> Iterator[pl.DataFrame | Rejected]:
    """Every block as what `judge` makes of it: its documents in one frame, then its rejects."""
    for block in blocks(source):
        if isinstance(block, Rejected):
            yield block
            continue
        frame, rejects = judge(block, source)
        if frame.height:
            yield frame
        yield from rejects
