"""What `ingest` left, and what goes on: Parquet with the columns as they are, so that a foreign column is seen and not dropped."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from autoglm_ops.validation.rules import Quarantined, Row


def read(path: Path) -> Any:
    """A pyarrow.Table."""
    import pyarrow.parquet as pq

    return pq.read_table(path)


def write(path: Path, rows: Sequence[Row], schema: Any) -> None:
    """Parquet with `schema`'s columns and no metadata: the bytes depend on the rows alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.Table.from_pylist(list(rows), schema=schema.remove_metadata()), path, compression="zstd")


def read_rejects(path: Path) -> list[Quarantined]:
    """The lines that `ingest` turned away, as quarantined rows."""
    found = (json.loads(line) for line in path.read_bytes().split(b"\n") if line)
    return [Quarantined(item["source"], item["line"], item["reason"], item["raw"]) for item in found]
