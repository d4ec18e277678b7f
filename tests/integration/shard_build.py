"""A small corpus of two shards, built task by task as `dataset_build` does it, through the command line's own functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import polars as pl
import pytest
import yaml

from autoglm_ops.cli import data as commands
from autoglm_ops.cli.data import Phase
from autoglm_ops.contracts.flow import BuiltDataset
from autoglm_ops.data.build.whole import PHASES, numbers
from autoglm_ops.settings import load
from autoglm_ops.stages import dataset

ROWS = 5000


def corpus(folder: Path) -> Path:
    """Two files, a shard each: one bad row, fifty copies over the shards' border, and what a protected text shares."""
    folder.mkdir(parents=True)
    texts = [
        f"document {number} of this corpus tells of ship {number * 7} and harbour {number * 13}, where nobody knew what the day would bring"
        for number in range(2 * ROWS)
    ]
    lines = [json.dumps({"text": text}) for text in texts]
    (folder / "a.jsonl").write_text("\n".join(lines[:ROWS]) + "\n{broken\n")
    (folder / "b.jsonl").write_text("\n".join([*lines[ROWS:], *lines[:50]]) + "\n")
    return folder


def tables(folder: Path) -> Path:
    """Two Parquet files, a shard each: their reader is the one that is not compiled, which a job would do anew."""
    folder.mkdir(parents=True)
    for name in "ab":
        texts = [
            f"document {number} of part {name} tells of ship {number * 7}, where nobody knew what the day would bring" * 2
            for number in range(ROWS)
        ]
        pl.DataFrame({"text": texts}).write_parquet(folder / f"{name}.parquet", compression="uncompressed")
    return folder


def checkout(root: Path, flow: dict[str, object], cluster: dict[str, object]) -> Path:
    root.mkdir()
    (root / "params.yaml").write_text(
        yaml.safe_dump({"flow": {"suite": None, "shard_mb": 1, **flow}, "cluster": cluster}), encoding="utf-8"
    )
    return root


def build(root: Path, raw: Path | str, patch: pytest.MonkeyPatch, width: int = 1) -> BuiltDataset:
    """Every task of every phase in order, so many of a phase at once; then `finish`."""
    patch.setenv("AUTOGLM_CHECKOUT", str(root))
    settings, home = load(root / "params.yaml", environ={}), root / ".autoglm"
    work = dataset.open_build(settings, str(raw), home, root)
    for phase in PHASES:
        each(lambda number, phase=phase: commands.task(work.name, Phase(phase), number), numbers(work, phase), width)
    commands.task(work.name, Phase.FINISH)
    [found] = dataset.listed(home)
    return found


def each(call: Callable[[int], None], todo: Iterable[int], width: int) -> None:
    with ThreadPoolExecutor(width) as pool:
        list(pool.map(call, todo) if width > 1 else map(call, todo))
