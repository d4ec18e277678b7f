"""All phases, one after the other, in one process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import polars as pl

from autoglm_ops.data.neardup.match import match, partitions
from autoglm_ops.data.neardup.options import Options
from autoglm_ops.data.neardup.settle import Settled, settle
from autoglm_ops.data.neardup.sign import sign
from autoglm_ops.data.neardup.verify import verify

BATCH = 4096


def dedup(shards: Sequence[Path], work: Path, options: Options | None = None) -> Settled:
    """Find the repeated rows of `shards` (Parquet files with a column `text`; their order decides which row of a cluster stays).

    Writes `work/gone/<number>.parquet` per shard (`settle.gone` reads it). `work` must be for this corpus with these options alone:
    what is in it already is taken as done.
    """
    options = options or Options()
    for number, path in enumerate(shards):
        sign(frames(path), number, work, options)
    count = partitions(work, options)
    for partition in range(count):
        match(partition, count, work)
    for number in range(len(shards)):
        verify(number, work, options)
    return settle(work)


def frames(path: Path) -> Iterator[pl.DataFrame]:
    """The `text` column of a Parquet file, BATCH rows at a time."""
    import pyarrow.parquet as pq

    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=BATCH, columns=["text"]):
            yield pl.DataFrame({"text": pl.Series(batch.column(0), dtype=pl.String)})
