"""CSV: quoted fields, torn files and the rows that an open quote would swallow."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_ops.data import csvfile
from autoglm_ops.data.lines import MAX_LINE
from autoglm_ops.data.rows import Reject, Row, Shape
from autoglm_ops.errors import BadData


def read(path: Path, content: bytes, shape: Shape) -> list[Row | Reject]:
    path.write_bytes(content)
    return list(csvfile.read(path, path.name, shape))


def test_quoted_fields_may_hold_commas_quotes_and_line_ends(tmp_path: Path, shape: Shape) -> None:
    (row, last) = read(tmp_path / "rows.csv", b'label,text\r\npos,"a, ""b""\nc"\r\nneg,d\r\n', shape)
    assert isinstance(row, Row)
    assert (row.text, row.label, row.line) == ('a, "b"\nc', "pos", 3)
    assert last.line == 4


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"pos,a\xff", "bad-utf8"),
        (b"pos", "wrong-field-count"),
        (b"pos,a,b", "wrong-field-count"),
        (b"", "blank-line"),
        (b"pos," + b"a" * MAX_LINE, "too-long"),
        (b'pos,"a"b', "bad-csv"),
        (b"pos,a\x00", "nul-character"),
    ],
)
def test_a_bad_line_costs_one_row(line: bytes, reason: str, tmp_path: Path, shape: Shape) -> None:
    before, bad, after = read(tmp_path / "rows.csv", b"label,text\npos,x\n" + line + b"\nneg,y\n", shape)
    assert isinstance(before, Row)
    assert isinstance(bad, Reject)
    assert (bad.reason, bad.line) == (reason, 3)
    assert isinstance(after, Row)
    assert (after.text, after.line) == ("y", 4)


def test_rows_swallowed_by_an_open_quote_all_count(tmp_path: Path, shape: Shape) -> None:
    items = read(tmp_path / "rows.csv", b'label,text\npos,"open\n' + b"neg,row\n" * 20, shape)
    assert [item.line for item in items] == list(range(2, 23))
    assert {item.reason for item in items if isinstance(item, Reject)} == {"truncated"}


def test_a_last_row_without_line_end_may_be_half_and_is_not_taken(tmp_path: Path, shape: Shape) -> None:
    row, torn = read(tmp_path / "rows.csv", b"text,label\na,pos\nb,po", shape)
    assert isinstance(row, Row)
    assert isinstance(torn, Reject)
    assert torn.reason == "truncated"


def test_an_empty_field_is_null(tmp_path: Path, shape: Shape) -> None:
    (row,) = read(tmp_path / "rows.csv", b"text,label,timestamp\n,pos,\n", shape)
    assert isinstance(row, Row)
    assert (row.text, row.timestamp) == (None, "2026-01-01")


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"review,stars\na,1\n", "has no column 'text'; it has review, stars")]
)
def test_a_file_of_another_shape_is_refused(content: bytes, words: str, tmp_path: Path, shape: Shape) -> None:
    with pytest.raises(BadData, match=words):
        read(tmp_path / "rows.csv", content, shape)
