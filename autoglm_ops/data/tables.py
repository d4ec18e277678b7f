"""Rows on disk: Parquet and JSON Lines with the same bytes for the same rows."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from autoglm_ops.data.rows import Reject, Row


class Sample(NamedTuple):
    """One row of a split. `weight` scales its loss."""

    id: str
    text: str
    label: str
    day: str
    source: str
    weight: float


class Copy(NamedTuple):
    """An augmented copy of a training row: a Sample under its own id, and its parent's id."""

    id: str
    text: str
    label: str
    day: str
    source: str
    weight: float
    parent: str

    def sample(self) -> Sample:
        return Sample(*self[:-1])


def write_rows(
    path: Path, rows: Sequence[Row] | Sequence[Sample] | Sequence[Copy], kind: type[Row] | type[Sample] | type[Copy]
) -> None:
    """Parquet with one column per field. No index, no times; the bytes depend on the rows and pyarrow's version alone."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {"line": pa.int64(), "weight": pa.float64()}
    schema = pa.schema([(name, types.get(name, pa.string())) for name in kind._fields])
    columns = [pa.array([row[place] for row in rows], field.type) for place, field in enumerate(schema)]
    pq.write_table(pa.Table.from_arrays(columns, schema=schema), path, compression="zstd")


def read_rows(path: Path) -> list[Row]:
    """What `write_rows` wrote of Rows."""
    return [Row(*values) for values in _values(path, Row._fields)]


def read_samples(path: Path) -> list[Sample]:
    """What `write_rows` wrote of Samples."""
    return [Sample(*values) for values in _values(path, Sample._fields)]


def read_copies(path: Path) -> list[Copy]:
    """What `write_rows` wrote of Copies."""
    return [Copy(*values) for values in _values(path, Copy._fields)]


def _values(path: Path, names: Sequence[str]) -> Iterable[tuple[Any, ...]]:
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=list(names))
    return zip(*(table.column(name).to_pylist() for name in names), strict=True)


def write_rejects(path: Path, rejects: Iterable[Reject]) -> None:
    """rejects.jsonl: {source, line, reason, raw}."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for reject in rejects:
            file.write(json.dumps(reject._asdict(), ensure_ascii=False, sort_keys=True) + "\n")


def read_rejects(path: Path) -> list[Reject]:
    """What `write_rejects` wrote. Split on LF alone: a raw line may hold U+2028."""
    return [Reject(**json.loads(line)) for line in path.read_bytes().split(b"\n") if line]
