"""CSV, Parquet and plain text as frames: hostile values, files that are wrong as a whole, and a cut at every byte (F01 to F05)."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from readers_parts import gathered, read_all, reasons, texts

from autoglm_ops.data.readers import Limits, Rejected
from autoglm_ops.data.readers.blocks import Opened
from autoglm_ops.data.readers.limits import MIB
from autoglm_ops.data.readers.names import FORMATS
from autoglm_ops.data.rows import Shape, row_id
from autoglm_ops.errors import BadData, Tampered


def opened(name: str, content: bytes, shape: Shape, limits: Limits | None = None) -> Any:
    source = Opened(name, io.BytesIO(content), 0, len(content), False, shape, limits or Limits())
    return gathered(FORMATS.get(name[name.rindex(".") :])(source))


def parquet(columns: dict[str, Any], **options: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, **options)
    return buffer.getvalue()


CSV = b"text,label\n" + b"".join(b'"row %d, ""quoted""\nover lines",pos\nplain %d,neg\n' % (n, n) for n in range(333))
TXT = b"".join("第 %d 行\r\n".encode() % n if n % 2 else b"line %d\n" % n for n in range(1000))
JSONL = b"".join(json.dumps({"text": f"row {n}"}).encode() + b"\n" for n in range(1000))


@pytest.mark.parametrize(("name", "content"), [("a.csv", CSV), ("a.txt", TXT), ("a.jsonl", JSONL)])
def test_cut_at_every_byte_only_whole_rows_come_and_the_rest_is_truncated(name: str, content: bytes, shape: Shape) -> None:
    """The parsing of a prefix does not depend on its length, so every byte of the last rows and every 13th of all stands for all."""
    whole, rejects = opened(name, content, shape)
    assert not rejects
    header = content.find(b"\n") + 1 if name == "a.csv" else 0
    cuts = {*range(header + 1, header + 120), *range(header + 1, len(content), 61), *range(len(content) - 120, len(content))}
    for cut in sorted(cuts):
        frame, rejects = opened(name, content[:cut], shape)
        assert frame.equals(whole[: frame.height])
        torn = content[:cut].rpartition(b"\n")[2]
        closed = name == "a.jsonl" and torn.endswith(b"}")
        open_quote = name == "a.csv" and content[:cut].count(b'"') % 2
        assert set(reasons(rejects)) == ({"truncated"} if (torn and not closed) or open_quote else set())


def test_a_csv_cut_in_its_header_is_refused(shape: Shape) -> None:
    for cut in range(len(b"text,label")):
        with pytest.raises(BadData):
            opened("a.csv", CSV[:cut], shape)


def test_a_parquet_cut_anywhere_is_refused(shape: Shape) -> None:
    content = parquet({"text": [f"row {n}" for n in range(1000)]})
    for cut in range(1, len(content), 97):
        with pytest.raises(BadData, match="is not a whole Parquet file"):
            opened("a.parquet", content[:cut], shape)


def test_a_file_that_shrank_since_it_was_listed_is_not_read(tmp_path: Path, shape: Shape) -> None:
    from autoglm_ops.data.readers import plan, read, survey

    path = tmp_path / "a.jsonl"
    path.write_bytes(JSONL)
    (shard,) = plan(survey(str(path), Limits()).blobs, MIB)
    path.write_bytes(JSONL[:-9])
    with pytest.raises(Tampered, match=r"a\.jsonl has \d+ bytes, but had \d+ when it was listed"):
        list(read(shard, str(path), shape, Limits()))


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"a\xff,pos", "bad-utf8"),
        (b"a", "wrong-field-count"),
        (b"a,b,c", "wrong-field-count"),
        (b"", "blank-line"),
        (b"a" * (MIB + 1) + b",pos", "too-long"),
        (b'"a"b,pos', "bad-csv"),
        (b"a\x00,pos", "nul-character"),
        (b",pos", "null-text"),
    ],
)
def test_a_bad_csv_line_costs_one_row(line: bytes, reason: str, shape: Shape) -> None:
    frame, (bad,) = opened("a.csv", b"text,label\nx,pos\n" + line + b"\ny,neg\n", shape)
    assert texts(frame) == ["x", "y"]
    assert frame["line"].to_list() == [2, 4]
    assert (bad.reason, bad.line, bad.offset) == (reason, 3, 17)


def test_an_open_quote_swallows_at_most_a_line_s_worth_and_all_of_it_counts(shape: Shape) -> None:
    count = 3 * MIB // 1024
    content = b'text,label\nx,pos\n"open' + (b"a" * 1019 + b",pos\n") * count
    frame, rejects = opened("a.csv", content, shape)
    assert frame.height + len(rejects) == 1 + count
    assert frame.height > count // 2
    assert frame["id"][0] == row_id("a.csv", 11)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", b"", "is empty"),
        ("a.txt", b"", "is empty"),
        ("a.jsonl", b"", "is empty"),
        ("a.csv", b"review,stars\na,1\n", "has no column 'text'; it has review, stars"),
        ("a.csv", b"text,text\na,1\n", "a column name twice"),
        ("a.csv", b"\xef\xbb\xbftext\na\n", "UTF-8 byte order mark"),
        ("a.txt", "a\n".encode("utf-16"), "UTF-16 byte order mark"),
        ("a.jsonl", b'{"body":"a"}\n' * 2, "none of its 2 objects has 'text'"),
        ("a.parquet", parquet({"body": ["a"]}), "has no column 'text'; it has body"),
        ("a.parquet", parquet({"text": pa.array([], pa.string())}), "has no rows"),
        ("a.parquet", b"PAR1 no PAR1", "is not a whole Parquet file"),
    ],
)
def test_a_file_that_is_wrong_as_a_whole_is_refused(name: str, content: bytes, words: str, shape: Shape) -> None:
    with pytest.raises(BadData, match=words):
        opened(name, content, shape)


def test_text_is_a_document_a_line(shape: Shape) -> None:
    content = "one\r\n\ntwo\u2028still two\n".encode() + b"bad \xff\nnul \0\n" + b"x" * (MIB + 1) + b"\nlast\n"
    frame, rejects = opened("a.txt", content, shape)
    assert texts(frame) == ["one", "", "two\u2028still two", "last"]
    assert frame["label"].is_null().all()
    assert reasons(rejects) == ["bad-utf8", "nul-character", "too-long"]
    assert frame.height + len(rejects) == content.count(b"\n")


def test_text_may_be_a_document_a_file(shape: Shape) -> None:
    limits = Limits(document="file", line=100)
    frame, rejects = opened("a.txt", b"one\ntwo", shape, limits)
    assert (texts(frame), rejects) == (["one\ntwo"], [])
    for content, reason in ((b"x" * 101, "too-long"), (b"\xff", "bad-utf8"), (b"\0", "nul-character")):
        frame, (reject,) = opened("a.txt", content, shape, limits)
        assert (frame.height, reject.reason) == (0, reason)


def test_parquet_values_are_judged_one_by_one(shape: Shape) -> None:
    bad = pa.StringArray.from_buffers(1, pa.py_buffer(bytes([0, 0, 0, 0, 1, 0, 0, 0])), pa.py_buffer(b"\xff"))
    column = pa.concat_arrays([pa.array(["a", None, "b\0", "c" * (MIB + 1), "书"]), bad, pa.array(["d"])])
    content = parquet({"text": column, "label": [1.0, 0, 0, 0, 2, 0, 0.5]})
    frame, rejects = opened("a.parquet", content, shape)
    assert (texts(frame), frame["label"].to_list(), frame["line"].to_list()) == (["a", "书"], ["1", "2"], [1, 5])
    assert [(reject.line, reject.reason) for reject in rejects] == [
        (2, "null-text"),
        (3, "nul-character"),
        (4, "too-long"),
        (6, "bad-utf8"),
        (7, "wrong-type"),
    ]
    assert all(isinstance(reject, Rejected) and reject.offset is None for reject in rejects)


def test_parquet_numbers_its_rows_over_row_groups(shape: Shape) -> None:
    content = parquet({"text": [f"row {n}" for n in range(5000)], "id": [f"i{n}" for n in range(5000)]}, row_group_size=700)
    frame, _ = opened("a.parquet", content, shape)
    assert frame["line"].to_list() == list(range(1, 5001))
    assert frame["id"].to_list() == [f"i{n}" for n in range(5000)]


def test_a_dictionary_that_repeats_one_long_value_is_read_in_small_batches(shape: Shape) -> None:
    """A file of kilobytes whose rows take 64 MiB here, and with more of them would take all there is."""
    value = "x" * (1 << 20)
    content = parquet({"text": pa.array([value] * 64).dictionary_encode().dictionary_decode()}, compression="zstd")
    assert len(content) < 20_000
    source = Opened("a.parquet", io.BytesIO(content), 0, len(content), False, shape, Limits(line=1 << 21))
    frames = list(FORMATS.get(".parquet")(source))
    assert sum(frame.height for frame in frames) == 64
    assert max(frame.estimated_size() for frame in frames) <= 66 * MIB


def test_all_formats_in_one_folder(tmp_path: Path, shape: Shape) -> None:
    (tmp_path / "a.csv").write_bytes(b"text,label\none,pos\n")
    (tmp_path / "b.parquet").write_bytes(parquet({"text": ["two"]}))
    (tmp_path / "c.txt").write_bytes(b"three\n")
    (tmp_path / "d.NDJSON").write_bytes(b'{"text":"four"}\n')
    frame, rejects = read_all(tmp_path, shape)
    assert (texts(frame), rejects) == (["one", "two", "three", "four"], [])
    assert frame["source"].to_list() == ["a.csv", "b.parquet", "c.txt", "d.NDJSON"]
    assert frame["timestamp"].to_list() == ["2026-01-01"] * 4
