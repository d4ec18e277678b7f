"""Threats F01 to F03 against the real engine, each by its id: bad rows, wrong files, torn files.

Each test holds its threat's whole sentence; the corners of one reader are in the tests of that reader.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import random
import re
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers_parts import gathered
from threat_parts import GOOD, built, frame, lines_of, refusal, rejected

from autoglm_ops.contracts.data import SourceFile, SourceManifest
from autoglm_ops.data.readers import Limits
from autoglm_ops.data.readers.blocks import Opened
from autoglm_ops.data.readers.names import FORMATS
from autoglm_ops.data.readers.unpack import Unpacked
from autoglm_ops.data.rows import Shape
from autoglm_ops.data.source import check
from autoglm_ops.errors import Tampered
from autoglm_ops.validation.verdict import judge, judge_documents

# F01: bad rows

MUTATED: dict[bytes, str] = {
    b'{"text": 7}': "wrong-type",
    b'{"text": ["a"]}': "wrong-type",
    b'{"text": "a", "label": 1.5}': "wrong-type",
    b'{"text": "a", "id": {}}': "wrong-type",
    b'{"label": "pos"}': "missing-column",
    b'{"text": null}': "null-text",
    b'{"text": "a", "label": NaN}': "not-a-number",
    b'{"text": "a", "label": -Infinity}': "not-a-number",
    b'{"text": "a", "score": 1e999}': "not-a-number",
    b'{"text": "a", "text": "b"}': "duplicate-key",
    b'{"text": "a\\u0000"}': "nul-character",
    b'{"text": "\\ud800 alone"}': "lone-surrogate",
    b'{"text": "a", "label": "%s"}' % (b"x" * 257): "name-too-long",
    b'{"text": "a\xff"}': "bad-utf8",
    b'{"text": "a"': "bad-json",
    b'["a"]': "not-an-object",
    b"  ": "blank-line",
}


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.sampled_from([*MUTATED, GOOD]), min_size=1, max_size=40))
def test_F01_every_bad_row_is_quarantined_with_its_reason_and_line(lines: list[bytes]) -> None:
    with tempfile.TemporaryDirectory() as name:
        raw = Path(name) / "raw"
        raw.mkdir()
        (raw / "a.jsonl").write_bytes(b"\n".join([GOOD, *lines]) + b"\n")
        made, folder = built(raw, Path(name))
        bad = [(number, MUTATED[line]) for number, line in enumerate(lines, start=2) if line in MUTATED]
        assert sorted(rejected(folder)) == sorted(bad)
        assert made.quarantined == dict(Counter(reason for _, reason in bad))
        assert (made.seen, made.kept) == (1 + len(lines), 1 + lines.count(GOOD))


def test_F01_more_bad_rows_than_the_budget_stop_the_run() -> None:
    assert judge(900, ["bad-utf8"] * 100, 100, ()).verdict == "accepted"
    report = judge(900, ["bad-utf8"] * 60 + ["null-text"] * 41, 100, ())
    assert (report.verdict, report.rows_in, report.rows_out) == ("refused", 1001, 900)
    assert report.reasons == ("over-budget: 101 rows are bad (bad-utf8 60, null-text 41), the budget is 100",)


# F02: empty, header-only, wrong file


def parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 4 + b"\n"
WRONG = {
    "empty.jsonl": (b"", "empty.jsonl is empty"),
    "empty.csv": (b"", "empty.csv is empty"),
    "empty.txt": (b"", "empty.txt is empty"),
    "empty.parquet": (b"", "is not a whole Parquet file|is empty"),
    "empty.jsonl.gz": (gzip.compress(b""), "empty.jsonl.gz is empty"),
    "header.csv": (b"text,label\n", "nothing is left of 0 documents"),
    "header.parquet": (parquet({"text": pa.array([], pa.string())}), "has no rows"),
    "blank.jsonl": (b"\n\n \n", "nothing is left of 3 documents"),
    "picture.jsonl": (PNG, "nothing is left of"),
    "picture.csv": (PNG, "has no column 'text'|not whole CSV"),
    "picture.parquet": (PNG, "is not a whole Parquet file"),
    "picture.jsonl.gz": (PNG, "is not whole .gz"),
    "other.jsonl": (b'{"body": "a"}\n' * 2, "none of its 2 objects has 'text'"),
    "other.csv": (b"review,stars\na,1\n", "has no column 'text'; it has review, stars"),
    "picture.png": (PNG, "holds no file of a known format"),
}


@pytest.mark.parametrize("name", WRONG)
def test_F02_a_file_of_nothing_or_of_something_else_fails_closed(name: str, tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / name).write_bytes(WRONG[name][0])
    assert re.search(WRONG[name][1], refusal(tmp_path / "raw", tmp_path))


def test_F02_an_empty_folder_and_none_at_all_fail_closed(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    assert "holds no file of a known format" in refusal(tmp_path / "raw", tmp_path)
    assert "does not exist; name a file" in refusal(tmp_path / "nowhere", tmp_path)


def test_F02_zero_rows_are_red_whatever_the_suite_says() -> None:
    report = judge_documents({"dataset": "d", "suite": "s", "asked": "a"}, rows=0, looked=0, found=())
    assert (report.verdict, report.reasons) == ("refused", ("no-rows: there is no document to look at",))


# F03: truncated, torn, CRLF, U+2028


def parsed(name: str, content: bytes, shape: Shape) -> tuple[pl.DataFrame, list[str]]:
    """What a file gives, and the reasons of what it does not."""
    stream: Any = io.BytesIO(content)
    packing = Path(name).suffix if name.endswith((".gz", ".zst")) else ""
    if packing:
        stream = Unpacked(stream, packing, name, Limits())
    form = Path(name.removesuffix(packing)).suffix
    found, rejects = gathered(FORMATS.get(form)(Opened(name, stream, 0, len(content), False, shape, Limits())))
    return found, [reject.reason for reject in rejects]


PLAIN_FORMS = ["a.jsonl", "a.csv", "a.txt"]


@pytest.mark.parametrize("name", PLAIN_FORMS)
def test_F03_a_file_cut_at_every_byte_yields_whole_rows_and_is_called_truncated(name: str, shape: Shape) -> None:
    """Every byte of 25 lines, and of the last of a thousand: a reader takes a block at a time, so a cut's row does not hang on the rows before."""
    content = lines_of(name)
    _check_cuts(name, content[: [n for n, byte in enumerate(content) if byte == 10][24] + 1], 0, shape)
    _check_cuts(name, content, len(content) - 40, shape)


@pytest.mark.slow
@pytest.mark.parametrize("name", PLAIN_FORMS)
def test_F03_a_thousand_lines_cut_at_every_byte(name: str, shape: Shape) -> None:
    _check_cuts(name, lines_of(name), 0, shape)


def _check_cuts(name: str, content: bytes, first: int, shape: Shape) -> None:
    rows, reasons = parsed(name, content, shape)
    assert rows.height and not reasons
    header = content.find(b"\n") + 1 if name == "a.csv" else 0
    for cut in range(max(first, header + 1), len(content)):
        _check_cut(name, content[:cut], rows, shape)


def _check_cut(name: str, content: bytes, rows: pl.DataFrame, shape: Shape) -> None:
    found, reasons = parsed(name, content, shape)
    torn, ends = content.rpartition(b"\n")[2], rows["line"].to_list()[1:]
    whole = name == "a.jsonl" and torn.rstrip(b"\r").endswith(b"}")  # JSON says itself where it ends
    complete = sum(line <= content.count(b"\n") + 1 for line in ends) + whole
    assert found.equals(rows[: found.height]) and found.height == complete
    open_quote = name == "a.csv" and content.count(b'"') % 2 == 1
    assert set(reasons) == ({"truncated"} if (torn and not whole) or open_quote else set())


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.jsonl.zst"])
def test_F03_a_packed_file_cut_at_every_byte(name: str, shape: Shape) -> None:
    """Noise packs badly, so that the packed file is cut inside many rows."""
    draw = random.Random(3)
    lines = b"".join(b'{"text":"%d"}\n' % draw.getrandbits(90) for _ in range(60))
    packed = (
        gzip.compress(lines, mtime=0) if name.endswith("gz") else zstandard.ZstdCompressor(write_checksum=True).compress(lines)
    )
    rows, reasons = parsed(name, packed, shape)
    assert (rows.height, reasons) == (60, [])
    for cut in range(1, len(packed)):
        found, reasons = parsed(name, packed[:cut], shape)
        assert found.equals(rows[: found.height]) and reasons == ["truncated"]


def test_F03_a_torn_file_in_a_build_costs_its_torn_row_and_is_counted(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    content = lines_of("a.jsonl")
    (tmp_path / "raw" / "a.jsonl").write_bytes(content[:-5])
    (tmp_path / "raw" / "b.jsonl.gz").write_bytes(gzip.compress(content, mtime=0)[:-40])
    (tmp_path / "raw" / "c.txt").write_bytes(b"one\r\ntwo\xe2\x80\xa8still two\r\nth")
    (tmp_path / "raw" / "d.csv").write_bytes(b'text,label\na,x\n"b, which goes on')
    made, folder = built(tmp_path / "raw", tmp_path)
    assert made.quarantined == {"truncated": 4}
    texts = set(frame(folder)["text"])
    assert {"one", "two\u2028still two", "a", "\u20280", "997"} <= texts
    assert not {"th", "b, which goes on", "999"} & texts


@pytest.mark.parametrize(
    "change", [lambda data: data[:-1], lambda data: data + b"\n", lambda data: data.replace(b"1", b"2", 1)]
)
def test_F03_a_file_that_is_not_as_its_manifest_says_is_refused(change: Callable[[bytes], bytes], tmp_path: Path) -> None:
    content = lines_of("a.jsonl")
    (tmp_path / "a.jsonl").write_bytes(content)
    said = SourceManifest(
        kind="files", files=(SourceFile(name="a.jsonl", sha256=hashlib.sha256(content).hexdigest(), size=len(content)),)
    )
    check(said, tmp_path / "a.jsonl")
    (tmp_path / "a.jsonl").write_bytes(change(content))
    with pytest.raises(Tampered, match=r"a\.jsonl has changed"):
        check(said, tmp_path / "a.jsonl")
