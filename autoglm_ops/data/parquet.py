"""Parquet, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from autoglm_ops.data.fields import to_row
from autoglm_ops.data.rows import RAW_CHARS, BadLineError, Reject, Row, Shape
from autoglm_ops.errors import BadData

BATCH = 8192


def read(path: Path, name: str, shape: Shape) -> Iterator[Row | Reject]:
    """Rows of `path`, numbered from 1. Raises BadData when it is no Parquet, has no rows, or lacks a needed column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            present = file.schema_arrow.names
            _check(present, file.metadata.num_rows, name, shape)
            wanted = [column for column in shape.columns.values() if column in present]
            records = (record for batch in file.iter_batches(BATCH, columns=wanted) for record in batch.to_pylist())
            line = 0
            for line, record in enumerate(records, start=1):
                yield _item(record, shape, name, line)
            if line != file.metadata.num_rows:  # a damaged footer can skip row groups without an error
                raise pa.ArrowInvalid(f"its footer says {file.metadata.num_rows} rows, {line} could be read")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise BadData(f"{name} is not a whole Parquet file: {reason}; write it again", ("truncated",)) from error


def _item(record: dict[str, Any], shape: Shape, name: str, line: int) -> Row | Reject:
    try:
        return to_row(record, shape, name, line)
    except BadLineError as error:
        return Reject(name, line, str(error), repr(record)[:RAW_CHARS])


def _check(present: list[str], rows: int, name: str, shape: Shape) -> None:
    for needed in (shape.columns["text"], shape.columns["label"]):
        if needed not in present:
            raise BadData(
                f"{name} has no column {needed!r}; it has {', '.join(present)[:300]}; name its columns in params.yaml, data.columns",
                ("missing-column",),
            )
    if rows == 0:
        raise BadData(f"{name} has no rows; give a file with at least one", ("empty-file",))
