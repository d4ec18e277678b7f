"""Parquet, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from autoglm_ops.data.fields import to_row
from autoglm_ops.data.rows import RAW_CHARS, BadLineError, Reject, Row, Shape
from autoglm_ops.errors import BadData

BATCH = 8192


def read(path: Path, name: str, shape: Shape) -> Iterator[Row | Reject]:
    """Rows of `path`, numbered from 1. Raises BadData when it is no Parquet, has no rows, or lacks a needed column."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise BadData(f"{name} is not a whole Parquet file: {str(error)[:200]}; write it again", ("truncated",)) from error
    with file:
        present = file.schema_arrow.names
        _check(present, file.metadata.num_rows, name, shape)
        line = 0
        for batch in file.iter_batches(BATCH, columns=[column for column in shape.columns.values() if column in present]):
            for record in batch.to_pylist():
                line += 1
                try:
                    yield to_row(record, shape, name, line)
                except BadLineError as error:
                    yield Reject(name, line, str(error), repr(record)[:RAW_CHARS])


def _check(present: list[str], rows: int, name: str, shape: Shape) -> None:
    for needed in (shape.columns["text"], shape.columns["label"]):
        if needed not in present:
            raise BadData(
                f"{name} has no column {needed!r}; it has {', '.join(present)[:300]}; name its columns in params.yaml, data.columns",
                ("missing-column",),
            )
    if rows == 0:
        raise BadData(f"{name} has no rows; give a file with at least one", ("empty-file",))
