"""CSV by RFC 4180: comma, double quotes, a header line, UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from autoglm_ops.data.fields import to_row
from autoglm_ops.data.lines import MAX_LINE, Line, lines
from autoglm_ops.data.rows import RAW_CHARS, BadLineError, Reject, Row, Shape, raw_text
from autoglm_ops.errors import BadData


def read(path: Path, name: str, shape: Shape) -> Iterator[Row | Reject]:
    """Rows of `path`. Raises BadData when the file is empty or its header lacks a needed column.

    A quoted field may run over lines; the row has the number of its last one. A bad record is one reject per line it ran over: a
    quote that is never closed swallows good rows, and they must all count against the budget.
    """
    csv.field_size_limit(MAX_LINE)
    feed = _Feed(lines(path, name))
    reader = csv.reader(feed, strict=True)
    header = _header(reader, name, shape)
    while True:
        feed.begin()
        try:
            fields = next(reader, None)
            if fields is None:
                return
            yield to_row(_record(header, fields, feed), shape, name, feed.number)
        except (BadLineError, csv.Error) as error:
            reason = str(error) if isinstance(error, BadLineError) else "truncated" if feed.exhausted else "bad-csv"
            yield from (Reject(name, line.number, reason, raw_text(line.raw)) for line in feed.record)


class _Feed:
    """Lines as text for the csv reader. `record` holds the lines of the present record."""

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self.record: list[Line] = []
        self.number = 0
        self.exhausted = False

    def begin(self) -> None:
        self.record = []

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._source, None)
        if line is None:
            self.exhausted = True
            raise StopIteration
        self.number = line.number
        # Of a line that is too long the start is enough, without quotes: an open one would swallow the lines after it.
        self.record.append(line if line.fits else line._replace(raw=line.raw[:RAW_CHARS].replace(b'"', b"")))
        return self.record[-1].raw.decode("utf-8", "surrogateescape") + "\n"


def _header(reader: Iterator[list[str]], name: str, shape: Shape) -> list[str]:
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise BadData(f"{name}: its header line is not CSV: {error}; quote fields by RFC 4180", ("bad-csv",)) from error
    _check_header(header, name, shape)
    return header


def _check_header(header: list[str], name: str, shape: Shape) -> None:
    for needed in (shape.columns["text"], shape.columns["label"]):
        if needed not in header:
            raise BadData(
                f"{name} has no column {needed!r}; it has {', '.join(header)[:300] or 'none'}; name its columns in params.yaml, data.columns",
                ("missing-column",),
            )
    if len(set(header)) != len(header):
        raise BadData(f"{name} has a column name twice: {', '.join(header)[:300]}; rename one", ("duplicate-key",))


def _record(header: list[str], fields: list[str], feed: _Feed) -> dict[str, str | None]:
    """Field by column name, an empty field as null. A last row without LF may have lost the end of its last field: it is refused."""
    if not all(line.fits for line in feed.record):
        raise BadLineError("too-long")
    if not feed.record[-1].ended:
        raise BadLineError("truncated")
    if not fields:
        raise BadLineError("blank-line")
    if len(fields) != len(header):
        raise BadLineError("wrong-field-count")
    if any("\udc80" <= char <= "\udcff" for field in fields if not field.isascii() for char in field):
        raise BadLineError("bad-utf8")
    return {column: field or None for column, field in zip(header, fields, strict=True)}
