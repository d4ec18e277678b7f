"""Parquet as frames, a few rows at a time."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

import polars as pl

from autoglm_ops.data.readers.blocks import Opened
from autoglm_ops.data.readers.frames import document, frame_of
from autoglm_ops.data.readers.limits import MIB, Rejected
from autoglm_ops.data.rows import RAW_CHARS, BadLineError, Row, row_id
from autoglm_ops.errors import BadData

FRAME = 8 * MIB  # bytes of a batch, by what the footer says a row takes
MAX_BATCH = 8192
_MOST = 64 * MIB  # bytes that a batch may take if every row repeats the longest value its dictionary can hold


def read(source: Opened) -> Iterator[pl.DataFrame | Rejected]:
    """Frames of DOCUMENT; `line` is the 1-based row. Raises BadData when it is no Parquet, has no rows, or lacks the text's column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _seekable(source) as raw, pq.ParquetFile(raw, page_checksum_verification=True) as file:
            wanted = _check(file, source)
            done = 0
            for batch in _batches(file, raw, wanted):
                rows, rejects = _judge(batch, done, source)
                done += batch.num_rows
                if rows:
                    yield frame_of(rows)
                yield from rejects
            if done != file.metadata.num_rows:  # a damaged footer can skip row groups without an error
                raise pa.ArrowInvalid(f"its footer says {file.metadata.num_rows} rows, {done} could be read")
    except (pa.ArrowException, OSError, MemoryError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadData(f"{source.name} is not a whole Parquet file: {reason}; write it again", ("truncated",)) from error


@contextmanager
def _seekable(source: Opened) -> Iterator[BinaryIO]:
    """The footer comes last: what cannot be sought in is copied to a temporary file first."""
    stream = cast(BinaryIO, source.stream)
    if stream.seekable():
        yield stream
        return
    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(stream, file, MIB)
        file.seek(0)
        yield cast(BinaryIO, file)


def _check(file: Any, source: Opened) -> list[str]:
    """The columns to read."""
    present, needed = file.schema_arrow.names, source.shape.columns["text"]
    if needed not in present:
        raise BadData(
            f"{source.name} has no column {needed!r}; it has {', '.join(present)[:300]}; name its columns in params.yaml, data.columns",
            ("missing-column",),
        )
    if file.metadata.num_rows == 0:
        raise BadData(f"{source.name} has no rows; give a file with at least one, or remove it", ("empty-file",))
    return [column for column in dict.fromkeys(source.shape.columns.values()) if column in present]


def _batches(file: Any, raw: BinaryIO, wanted: list[str]) -> Iterator[Any]:
    for number in range(file.metadata.num_row_groups):
        # Arrow aborts the process when it describes a chunk whose footer is damaged, and raises when it reads one: so first a row is read.
        next(iter(file.iter_batches(1, row_groups=[number], columns=wanted)), None)
        rows = _batch_rows(file.metadata, number, raw, wanted)
        yield from file.iter_batches(rows, row_groups=[number], columns=wanted)


def _batch_rows(metadata: Any, number: int, raw: BinaryIO, wanted: list[str]) -> int:
    """Rows a batch, so that neither the average row nor a dictionary that repeats one long value outgrows memory."""
    group, schema = metadata.row_group(number), metadata.schema
    chunks = [group.column(place) for place in range(len(schema)) if schema.column(place).path in wanted]
    average = sum(chunk.total_uncompressed_size for chunk in chunks) // max(group.num_rows, 1)
    longest = max((_dictionary_bytes(chunk, raw) for chunk in chunks), default=0)
    return max(min(MAX_BATCH, FRAME // max(int(average), 1), _MOST // max(longest, 1)), 1)


def _dictionary_bytes(chunk: Any, raw: BinaryIO) -> int:
    """Unpacked bytes of a column chunk's dictionary page, 0 without one. From the page's own header, which is what gets allocated.

    The header is Thrift's compact protocol: field 1 the page's type, field 2 this size, each as 0x15 and a zigzag varint.
    """
    if not chunk.has_dictionary_page:
        return 0
    raw.seek(chunk.dictionary_page_offset)
    header = raw.read(16)
    size = shift = 0
    for byte in header[3:] if header[:1] == b"\x15" == header[2:3] else b"":
        size |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            return size >> 1
    raise OSError("a dictionary page has no readable header")


def _judge(batch: Any, done: int, source: Opened) -> tuple[list[Row], list[Rejected]]:
    rows: list[Row] = []
    rejects: list[Rejected] = []
    for number, record in enumerate(_records(batch), start=done + 1):
        try:
            rows.append(_row(record, number, source))
        except BadLineError as error:
            raw = repr(record)[:RAW_CHARS].encode("utf-8", "backslashreplace").decode()
            rejects.append(Rejected(source.name, number, None, str(error), raw))
    return rows, rejects


def _records(batch: Any) -> Iterator[dict[str, Any] | None]:
    """Rows as Python values, None for one whose strings are not UTF-8: pyarrow does not look when it reads."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for place in range(batch.num_rows):
        try:
            yield from batch.slice(place, 1).to_pylist()
        except UnicodeDecodeError:
            yield None


def _row(record: dict[str, Any] | None, number: int, source: Opened) -> Row:
    if record is None:
        raise BadLineError("bad-utf8")
    text = record[source.shape.columns["text"]]
    if (
        isinstance(text, str)
        and 4 * len(text) > source.limits.line
        and len(text.encode("utf-8", "replace")) > source.limits.line
    ):
        raise BadLineError("too-long")
    return document(record, source.shape, source.name, number, row_id(source.name, number))
