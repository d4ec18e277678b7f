"""Parquet as a labelled dataset: typed columns bring their own faults."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from autoglm_ops.data import source
from autoglm_ops.data.rows import Reject, Row, Shape
from autoglm_ops.errors import BadData


def read(path: Path, columns: dict[str, pa.Array], shape: Shape) -> list[Row | Reject]:
    pq.write_table(pa.table(columns), path)
    return list(source.read(path, shape, 14))


def test_a_nan_label_is_a_reject_and_a_whole_float_is_its_integer(tmp_path: Path, shape: Shape) -> None:
    good, bad = read(tmp_path / "rows.parquet", {"text": pa.array(["a", "b"]), "label": pa.array([1.0, float("nan")])}, shape)
    assert isinstance(good, Row)
    assert good.label == "1"
    assert isinstance(bad, Reject)
    assert (bad.reason, bad.line) == ("not-a-number", 2)


def test_dates_and_times_become_utc_days(tmp_path: Path, shape: Shape) -> None:
    days = pa.array([datetime(2026, 3, 1, 23, 30, tzinfo=UTC), None])
    first, none = read(
        tmp_path / "t.parquet", {"text": pa.array(["a", "b"]), "label": pa.array(["x", "y"]), "timestamp": days}, shape
    )
    assert isinstance(first, Row)
    assert isinstance(none, Row)
    assert (first.timestamp, none.timestamp) == ("2026-03-01", "2026-01-01")
    (row,) = read(
        tmp_path / "d.parquet",
        {"text": pa.array(["a"]), "label": pa.array(["x"]), "timestamp": pa.array([date(2026, 3, 2)])},
        shape,
    )
    assert isinstance(row, Row)
    assert row.timestamp == "2026-03-02"


def test_a_torn_file_an_empty_one_and_a_missing_column_are_refused(tmp_path: Path, shape: Shape) -> None:
    with pytest.raises(BadData, match="none of its 1 rows has a 'label'"):
        read(tmp_path / "rows.parquet", {"text": pa.array(["a"])}, shape)
    with pytest.raises(BadData, match="has no rows"):
        read(tmp_path / "rows.parquet", {"text": pa.array([], pa.string()), "label": pa.array([], pa.string())}, shape)
    whole = (tmp_path / "rows.parquet").read_bytes()
    (tmp_path / "torn.parquet").write_bytes(whole[:-5])
    with pytest.raises(BadData, match="not a whole Parquet file"):
        list(source.read(tmp_path / "torn.parquet", shape, 14))


def test_a_flipped_byte_gives_rows_or_one_clear_refusal(tmp_path: Path, shape: Shape) -> None:
    good = tmp_path / "good.parquet"
    pq.write_table(pa.table({"text": ["书很好"] * 20, "label": ["x", "y"] * 10}), good, write_page_checksum=True)
    whole = good.read_bytes()
    refused = 0
    for place in range(4, len(whole), 7):
        (tmp_path / "bad.parquet").write_bytes(whole[:place] + bytes([whole[place] ^ 0x41]) + whole[place + 1 :])
        try:
            assert len(list(source.read(tmp_path / "bad.parquet", shape, 14))) == 20
        except BadData as error:
            assert "bad.parquet" in str(error)
            refused += 1
    assert refused > 50
