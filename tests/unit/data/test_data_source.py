"""Where rows come from: the bundled replay, files and folders, digests and days."""

from __future__ import annotations

import sys
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

from autoglm_ops.data import source
from autoglm_ops.data.intake import take
from autoglm_ops.data.rows import Reject, Row, Shape
from autoglm_ops.errors import BadData, Tampered

EPOCH = date(2026, 1, 1)


@pytest.fixture(scope="module")
def replay() -> list[Row]:
    shape = Shape({name: name for name in ("text", "label", "timestamp", "id", "source")}, EPOCH)
    return [item for item in source.read(None, shape, 14) if isinstance(item, Row)]


def test_the_bundled_replay_is_all_of_it_in_equal_days_of_new_text(replay: list[Row]) -> None:
    assert len(replay) == len({row.id for row in replay}) == 35_124
    fresh = {(row.label, (row.text or "").strip()): row.timestamp for row in replay}
    days = Counter(fresh.values())
    assert sorted(days) == [f"2026-01-{day:02}" for day in range(1, 15)]
    assert max(days.values()) - min(days.values()) <= 4
    assert "snownlp" not in sys.modules, "importing it would load its models"


def test_a_repeat_belongs_to_the_day_of_the_line_it_repeats(replay: list[Row]) -> None:
    days: dict[tuple[str | None, str], set[str]] = {}
    for row in replay:
        days.setdefault((row.label, (row.text or "").strip()), set()).add(row.timestamp)
    assert all(len(seen) == 1 for seen in days.values())


def test_the_days_of_the_bundled_set_need_no_reading() -> None:
    assert source.days(None, EPOCH, 14, {}) == ("2026-01-01", "2026-01-14")


def test_a_folder_is_read_file_by_file_and_its_days_span_all(tmp_path: Path, shape: Shape) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "two.csv").write_text("text,label,timestamp\nx,pos,2026-02-03\n")
    (tmp_path / "a.jsonl").write_text('{"text": "y", "label": 1, "timestamp": "2026-02-01T23:00:00-02:00"}\n')
    (tmp_path / ".hidden.jsonl").write_text("no")
    (tmp_path / "README.txt").write_text("no")
    manifest = source.manifest(tmp_path)
    assert [file.name for file in manifest.files] == ["a.jsonl", "b/two.csv"]
    rows = [item for item in source.read(tmp_path, shape, 14) if isinstance(item, Row)]
    assert [(row.text, row.label, row.timestamp, row.source) for row in rows] == [
        ("y", "1", "2026-02-02", "a.jsonl"),
        ("x", "pos", "2026-02-03", "b/two.csv"),
    ]
    assert source.days(tmp_path, EPOCH, 14, shape.columns) == ("2026-02-02", "2026-02-03")


def test_own_column_names(tmp_path: Path) -> None:
    path = tmp_path / "own.jsonl"
    path.write_text('{"review": "good", "stars": 5, "when": "2026-02-01", "key": 17, "shop": "north"}\n')
    shape = Shape({"text": "review", "label": "stars", "timestamp": "when", "id": "key", "source": "shop"}, EPOCH)
    assert list(source.read(path, shape, 14)) == [Row("17", "good", "5", "2026-02-01", "north", 1)]


def test_data_that_changed_since_the_snapshot_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": "x"}\n')
    then = source.manifest(tmp_path)
    source.check(then, tmp_path)
    path.write_text('{"text": "b", "label": "x"}\n')
    with pytest.raises(Tampered, match=r"rows\.jsonl has changed since inputs/source\.json"):
        source.check(then, tmp_path)
    (tmp_path / "new.csv").write_text("text,label\n")
    with pytest.raises(Tampered, match=r"new\.csv is new"):
        source.check(then, tmp_path)


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("gone.jsonl", BadData, "does not exist"),
        ("empty", BadData, "holds no file"),
        ("x.xls", BadData, "no file of a known format"),
    ],
)
def test_a_path_that_names_no_data_is_refused(name: str, error: type[Exception], words: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "x.xls").write_bytes(b"x")
    with pytest.raises(error, match=words):
        source.manifest(tmp_path / name)


def test_later_rows_are_counted_and_bad_timestamps_go_on_to_be_quarantined() -> None:
    def row(day: str) -> Row:
        return Row(day, "t", "x", day, "s", 1)

    bad = Reject("s", 9, "bad-json", "{")
    intake = take([row("2026-01-02"), row("2026-01-03"), row("soon"), row("9999-99-99"), bad], "2026-01-02")
    assert [item.timestamp for item in intake.rows] == ["2026-01-02", "soon", "9999-99-99"]
    assert (intake.later, intake.rejects) == (1, [bad])
