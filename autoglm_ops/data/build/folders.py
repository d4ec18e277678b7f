"""A task's result is a folder: made beside its place, on disk, then renamed into it. One that is there is whole."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

from autoglm_ops.contracts.record import sync
from autoglm_ops.errors import TryAgain

NO_SPACE = "free space, then start the same build again: it goes on where it was"


@contextmanager
def made_whole(folder: Path) -> Iterator[Path]:
    """A fresh folder to write into, which becomes `folder` at the end; nothing is left of it when the block fails.

    Whoever makes the same at the same time (a retry whose first try still lives, on another machine even) has a folder of its own, so
    that nobody's half is taken for whole; the first to end wins, and the others end quietly. Raises TryAgain when the disk is full or
    refuses.
    """
    part = folder.with_name(f"{folder.name}.{uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        yield part
        for path in [*part.rglob("*"), part]:
            sync(path)
        os.replace(part, folder)
        sync(folder.parent)
        for left in folder.parent.glob(f"{folder.name}.*.part"):  # of those that were killed, or are late
            shutil.rmtree(left, ignore_errors=True)
    except OSError as error:
        if folder.exists():  # the other one made it
            return
        raise TryAgain(f"{folder} could not be written: {error.strerror or error}; {NO_SPACE}") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


class Table:
    """A Parquet file written frame by frame: the same frames, the same bytes."""

    def __init__(self, path: Path, schema: pl.Schema) -> None:
        self._schema = schema.to_frame().to_arrow().schema
        self._file = pq.ParquetWriter(path, self._schema, compression="zstd", compression_level=1)
        self.rows = 0

    def add(self, frame: pl.DataFrame) -> None:
        if frame.height:
            self._file.write_table(frame.to_arrow().cast(self._schema))
            self.rows += frame.height

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()


def frames(path: Path) -> Iterator[pl.DataFrame]:
    """A Table's frames, one row group at a time."""
    with pq.ParquetFile(path) as file:
        for group in range(file.num_row_groups):
            table: pa.Table = file.read_row_group(group)
            frame = pl.from_arrow(table)
            assert isinstance(frame, pl.DataFrame)  # a table never becomes a series
            yield frame


def json_line(value: Any) -> bytes:
    """One record of a JSON Lines file."""
    return (json.dumps(value, ensure_ascii=False, sort_keys=True) + "\n").encode()
