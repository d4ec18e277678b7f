"""Hostile JSON Lines: every line is a row or a reject with a reason word, never half of either (threats F01, F03, F04, F05)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from autoglm_ops.data import jsonl
from autoglm_ops.data.lines import MAX_LINE
from autoglm_ops.data.rows import Reject, Row, Shape
from autoglm_ops.errors import BadData

GOOD = b'{"text": "fine", "label": "pos"}'


def read(path: Path, content: bytes, shape: Shape) -> list[Row | Reject]:
    path.write_bytes(content)
    return list(jsonl.read(path, path.name, shape))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "a\xff", "label": "pos"}', "bad-utf8"),
        (b'{"text": "\xc0\xaf", "label": "pos"}', "bad-utf8"),  # an overlong slash
        ('{"text": "a", "label": "pos"}'.encode("utf-16-le"), "bad-json"),
        (b'{"text": "a", "label": "pos"', "bad-json"),
        (b'{"text": "a", "label": "pos"} x', "bad-json"),
        (b'{"text": "a", "text": "b", "label": "pos"}', "duplicate-key"),
        (b'{"text": "a", "label": NaN}', "not-a-number"),
        (b'{"text": "a", "label": "pos", "more": -Infinity}', "not-a-number"),
        (b'{"text": "a", "label": 1e999}', "not-a-number"),
        (b'{"text": "a", "label": ' + b"9" * 5000 + b"}", "number-too-long"),
        (b'{"text": "a", "label": "pos", "more": ' + b"[" * 100_000 + b"}", "too-deep"),
        (b'{"text": "' + b"a" * MAX_LINE + b'", "label": "pos"}', "too-long"),
        (b'{"text": "a"}', "missing-column"),
        (b'{"text": 7, "label": "pos"}', "wrong-type"),
        (b'{"text": "a", "label": ["pos"]}', "wrong-type"),
        (b'{"text": "a", "label": 0.5}', "wrong-type"),
        (b'{"text": "a\\u0000", "label": "pos"}', "nul-character"),
        (b'{"text": "\\ud800", "label": "pos"}', "lone-surrogate"),
        (b'["a", "pos"]', "not-an-object"),
        (b"  ", "blank-line"),
    ],
)
def test_a_bad_line_is_one_reject_between_two_rows(line: bytes, reason: str, tmp_path: Path, shape: Shape) -> None:
    before, bad, after = read(tmp_path / "rows.jsonl", b"\n".join([GOOD, line, GOOD, b""]), shape)
    assert isinstance(before, Row)
    assert isinstance(bad, Reject)
    assert (bad.reason, bad.line, bad.source) == (reason, 2, "rows.jsonl")
    assert isinstance(after, Row)
    assert after.line == 3
    bad.raw.encode()


def test_separators_inside_a_string_do_not_cut_a_line(tmp_path: Path, shape: Shape) -> None:
    content = '{"text": "one\u2028two\x85three", "label": "pos"}\r\n'.encode()
    (row,) = read(tmp_path / "rows.jsonl", content, shape)
    assert isinstance(row, Row)
    assert row.text == "one\u2028two\x85three"


def test_cut_anywhere_only_whole_lines_are_accepted(tmp_path: Path, shape: Shape) -> None:
    texts = ["书很好", "room 101", 'a "quoted" \\ one', "差"]
    whole = b"".join(json.dumps({"text": text, "label": "pos"}, ensure_ascii=False).encode() + b"\n" for text in texts)
    for cut in range(1, len(whole)):
        part = whole[:cut]
        items = read(tmp_path / "cut.jsonl", part, shape)
        rows = [item for item in items if isinstance(item, Row)]
        rejects = [item for item in items if isinstance(item, Reject)]
        ended, torn = part.count(b"\n"), part.rpartition(b"\n")[2]
        closed = torn.endswith(b"}")  # an object that is closed is whole, with or without its LF
        assert [row.text for row in rows] == texts[: ended + closed]
        assert [reject.reason for reject in rejects] == (["truncated"] if torn and not closed else [])


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "is empty"), (b"\xef\xbb\xbf" + GOOD, "UTF-8 byte order mark"), (b"\xff\xfe{", "UTF-16")]
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(content: bytes, words: str, tmp_path: Path, shape: Shape) -> None:
    with pytest.raises(BadData, match=words):
        read(tmp_path / "rows.jsonl", content, shape)


def test_a_file_without_the_columns_is_refused_by_name(tmp_path: Path, shape: Shape) -> None:
    with pytest.raises(BadData, match=r"rows\.jsonl: none of its 2 objects has both 'text' and 'label'"):
        read(tmp_path / "rows.jsonl", b'{"review": "a"}\n{"review": "b"}\n', shape)


def test_a_line_without_end_is_read_in_bounded_memory(tmp_path: Path, shape: Shape) -> None:
    import tracemalloc

    path = tmp_path / "long.jsonl"
    with path.open("wb") as file:
        file.write(GOOD + b"\n")
        for _ in range(32):
            file.write(b"[" * MAX_LINE)
        file.write(b"\n" + GOOD + b"\n")
    tracemalloc.start()
    items = list(jsonl.read(path, path.name, shape))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [type(item) for item in items] == [Row, Reject, Row]
    assert peak < 8 * MAX_LINE


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150, deadline=None)
@given(
    content=st.lists(
        st.one_of(st.just(GOOD), st.binary(max_size=60).filter(lambda raw: b"\n" not in raw)), min_size=1, max_size=12
    )
)
def test_every_line_is_accounted_for(content: list[bytes], tmp_path: Path, shape: Shape) -> None:
    whole = b"".join(line + b"\n" for line in content)
    if whole.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return
    try:
        items = read(tmp_path / "any.jsonl", whole, shape)
    except BadData as error:
        assert error.reasons == ("missing-column",)
        return
    assert [item.line for item in items] == list(range(1, len(content) + 1))
    assert sum(isinstance(item, Row) for item in items) >= content.count(GOOD)
