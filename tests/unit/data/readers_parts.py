"""Reading made short for the tests of the readers."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import polars as pl

from autoglm_ops.data.flow import DOCUMENT
from autoglm_ops.data.readers import Limits, Rejected, plan, read, survey
from autoglm_ops.data.rows import Shape


def read_all(
    location: Path | str, shape: Shape, limits: Limits | None = None, most: int = 1 << 40
) -> tuple[pl.DataFrame, list[Rejected]]:
    """All documents in one frame, all rejects in one list."""
    limits = limits or Limits()
    shards = plan(survey(str(location), limits).blobs, most)
    return gathered(item for shard in shards for item in read(shard, str(location), shape, limits))


def gathered(items: Iterable[pl.DataFrame | Rejected]) -> tuple[pl.DataFrame, list[Rejected]]:
    frames, rejects = [pl.DataFrame(schema=DOCUMENT)], []
    for item in items:
        if isinstance(item, Rejected):
            rejects.append(item)
        else:
            assert item.schema == DOCUMENT and item.height
            frames.append(item)
    return pl.concat(frames), rejects


def reasons(rejects: Iterable[Rejected]) -> list[str]:
    return [reject.reason for reject in rejects]


def texts(frame: pl.DataFrame) -> list[Any]:
    return frame["text"].to_list()
