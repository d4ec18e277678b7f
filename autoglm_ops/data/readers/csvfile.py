"""CSV by RFC 4180 as frames: comma, double quotes, a header line, UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import NamedTuple

import polars as pl

from autoglm_ops.data.readers.blocks import Opened, blocks
from autoglm_ops.data.readers.frames import document, frame_of
from autoglm_ops.data.readers.limits import Rejected
from autoglm_ops.data.rows import BadLineError, Row, row_id
from autoglm_ops.errors import BadData

FRAME = 8 << 20


def read(source: Opened) -> Iterator[pl.DataFrame | Rejected]:
    """Frames of DOCUMENT, and what was rejected. Raises BadData when the file is empty or its header lacks the text's column.

    A quoted field may run over lines; the row has the number and the offset of its first one. A bad record is one reject per line it
    ran over: a quote that is never closed swallows good rows, and they must all count.
    """
    csv.field_size_limit(source.limits.line)
    feed = _Feed(source)
    reader = csv.reader(feed, strict=True)
    header = _header(reader, feed, source)
    rows: list[Row] = []
    for item in _records(reader, feed, header, source):
        if isinstance(item, Row):
            rows.append(item)
        else:
            yield item
        if feed.taken > FRAME and rows:
            yield frame_of(rows)
            rows, feed.taken = [], 0
    if rows:
        yield frame_of(rows)


class _Line(NamedTuple):
    """A physical line without its LF, or (`reason`) one that cannot be part of a row."""

    raw: bytes
    number: int
    offset: int
    reason: str = ""


def _records(reader: Iterator[list[str]], feed: _Feed, header: list[str], source: Opened) -> Iterator[Row | Rejected]:
    while True:
        feed.begin()
        try:
            fields = next(reader, None)
            if fields is None:
                return
            first = feed.record[0]
            yield document(
                _record(header, fields, feed), source.shape, source.name, first.number, row_id(source.name, first.offset)
            )
        except (BadLineError, csv.Error) as error:
            reason = str(error) if isinstance(error, BadLineError) else "truncated" if feed.exhausted else "bad-csv"
            for line in feed.record:
                yield Rejected.of(source.name, line.number, line.offset, line.reason or reason, line.raw)


class _Feed:
    """Lines as text for the csv reader. `record` holds the lines of the present record, `taken` counts bytes since it was set."""

    def __init__(self, source: Opened) -> None:
        self._source = source
        self._lines = self._split()
        self.record: list[_Line] = []
        self.taken = self._size = 0
        self.exhausted = False

    def begin(self) -> None:
        self.record, self._size = [], 0

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._lines, None)
        if line is None:
            self.exhausted = True
            raise StopIteration
        self.record.append(line)
        self._size += len(line.raw) + 1
        self.taken += len(line.raw) + 1
        if line.reason:
            raise BadLineError(line.reason)
        if self._size > self._source.limits.line + 1:
            raise BadLineError("too-long")
        return line.raw.decode("utf-8", "surrogateescape") + "\n"

    def _split(self) -> Iterator[_Line]:
        for block in blocks(self._source):
            if isinstance(block, Rejected):
                yield _Line(block.raw.encode(), block.line, block.offset or 0, block.reason)
                continue
            offset = block.offset
            raws = block.data.split(b"\n")
            torn = raws.pop()
            for number, raw in enumerate(raws, start=block.line):
                yield _Line(raw, number, offset)
                offset += len(raw) + 1
            if torn:  # it may have lost the end of its last field
                yield _Line(torn, block.line + len(raws), offset, "truncated")


def _header(reader: Iterator[list[str]], feed: _Feed, source: Opened) -> list[str]:
    try:
        header = next(reader, [])
    except (csv.Error, BadLineError) as error:
        raise BadData(
            f"{source.name}: its header line is not whole CSV: {error}; quote fields by RFC 4180", ("bad-csv",)
        ) from error
    needed = source.shape.columns["text"]
    if needed not in header:
        raise BadData(
            f"{source.name} has no column {needed!r}; it has {', '.join(header)[:300] or 'none'}; name its columns in params.yaml, data.columns",
            ("missing-column",),
        )
    if len(set(header)) != len(header):
        raise BadData(f"{source.name} has a column name twice: {', '.join(header)[:300]}; rename one", ("duplicate-key",))
    return header


def _record(header: list[str], fields: list[str], feed: _Feed) -> dict[str, str | None]:
    """Field by column name, an empty field as null."""
    if not fields:
        raise BadLineError("blank-line")
    if len(fields) != len(header):
        raise BadLineError("wrong-field-count")
    if any("\udc80" <= char <= "\udcff" for field in fields if not field.isascii() for char in field):
        raise BadLineError("bad-utf8")
    return {column: field or None for column, field in zip(header, fields, strict=True)}
