"""CSV by RFC 4180: comma, double quotes, a header line, UTF-8."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from autoglm_ops.data.fields import to_row
from autoglm_ops.data.lines import MAX_LINE, Line, lines
from autoglm_ops.data.rows import RAW_CHARS, BadLineError, Reject, Row, Shape
from autoglm_ops.errors import BadData


def read(path: Path, name: str, shape: Shape) -> Iterator[Row | Reject]:
    """Rows of `path`. Raises BadData when the file is empty or its header lacks a needed column.

    A quoted field may run over lines; the row has the number of its last one.
    """
    feed = _Feed(lines(path, name))
    reader = csv.reader(feed, strict=True)
    csv.field_size_limit(MAX_LINE)
    header = next(reader, [])
    _check_header(header, name, shape)
    while True:
        feed.begin()
        try:
            fields = next(reader, None)
            if fields is None:
                return
            yield to_row(_record(header, fields, feed), shape, name, feed.number)
        except (BadLineError, csv.Error) as error:
            reason = str(error) if isinstance(error, BadLineError) else "truncated" if feed.exhausted else "bad-csv"
            yield Reject(name, feed.number, reason, feed.raw())


class _Feed:
    """Lines as text for the csv reader. It remembers what the present record was made of, so that a bad one is reported whole."""

    def __init__(self, source: Iterator[Line]) -> None:
        self._source = source
        self._texts: list[str] = []
        self.number = 0
        self.exhausted = False
        self.ended = self.fits = True

    def begin(self) -> None:
        self._texts = []
        self.fits = True

    def raw(self) -> str:
        whole = "".join(self._texts)[:RAW_CHARS]
        return whole.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        line = next(self._source, None)
        if line is None:
            self.exhausted = True
            raise StopIteration
        self.number, self.ended = line.number, line.ended
        self.fits = self.fits and line.fits and sum(map(len, self._texts)) <= MAX_LINE
        # A line that is too long is kept as its start, without quotes: an open one would swallow the lines after it.
        text = line.raw.decode("utf-8", "surrogateescape") if line.fits else raw_start(line.raw)
        self._texts.append(text)
        return text + "\n"


def raw_start(raw: bytes) -> str:
    """The beginning of a line that is too long, made harmless for the csv reader."""
    return raw[:RAW_CHARS].decode("utf-8", "surrogateescape").replace('"', "")


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
    if not feed.fits:
        raise BadLineError("too-long")
    if not feed.ended:
        raise BadLineError("truncated")
    if not fields:
        raise BadLineError("blank-line")
    if len(fields) != len(header):
        raise BadLineError("wrong-field-count")
    if any("\udc80" <= char <= "\udcff" for field in fields if not field.isascii() for char in field):
        raise BadLineError("bad-utf8")
    return {column: field or None for column, field in zip(header, fields, strict=True)}
