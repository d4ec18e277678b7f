"""The documents that stand for all: the same however the dataset is cut, one id together, no more than fit."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.data.build.sample import CHARACTERS, ROWS, sample, size
from autoglm_ops.data.flow import DOCUMENT


def written(folder: Path, ids: list[str], parts: int = 1) -> list[Path]:
    columns = {
        "id": ids,
        "text": [f"text {n}" for n in range(len(ids))],
        "label": None,
        "timestamp": None,
        "source": "s",
        "line": 1,
    }
    frame = pl.DataFrame(columns, schema=DOCUMENT)
    step = -(-len(ids) // parts)
    files = [folder / f"{place}.parquet" for place in range(parts)]
    for place, path in enumerate(files):
        frame[place * step : (place + 1) * step].write_parquet(path)
    return files


def test_a_sample_is_as_large_as_asked_spread_evenly_and_moved_by_no_cut(tmp_path: Path) -> None:
    ids = [f"d{n}" for n in range(6000)]
    drawn = sample(written(tmp_path, ids), len(ids), 1000, 7)
    assert len(drawn["id"]) == 1000 and all(len(values) == 1000 for values in drawn.values())
    assert 400 < sum(int(name[1:]) < 3000 for name in drawn["id"]) < 600
    assert sample(written(tmp_path, ids, parts=7), len(ids), 1000, 7) == drawn
    assert sample(written(tmp_path, ids), len(ids), 1000, 8)["id"] != drawn["id"]


def test_an_id_that_stands_twice_is_drawn_twice_or_not_at_all(tmp_path: Path) -> None:
    ids = [f"d{n % 2000}" for n in range(4000)]
    drawn = sample(written(tmp_path, ids, parts=3), len(ids), 500, 7)["id"]
    assert 500 <= len(drawn) <= 501 and {drawn.count(name) for name in drawn} == {2}


def test_all_are_taken_when_they_fit(tmp_path: Path) -> None:
    assert sample(written(tmp_path, ["a", "a", "b"]), 3, 3, 7)["id"] == ["a", "a", "b"]


@given(st.integers(0, 10**12), st.integers(0, 10**15))
def test_a_sample_fits_in_memory(rows: int, characters: int) -> None:
    most = size(rows, characters)
    assert 1 <= most <= max(ROWS, 1)
    assert most == 1 or most * characters <= CHARACTERS * rows


@pytest.mark.parametrize(("rows", "characters", "most"), [(10, 1000, 10), (10**6, 10**8, 50_000), (1000, 1000 << 20, 32)])
def test_sizes(rows: int, characters: int, most: int) -> None:
    assert size(rows, characters) == most
