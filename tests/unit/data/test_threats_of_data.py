"""Threats F01 to F09 against the real engine, each by its id: what is said, and seen = kept + dropped + quarantined.

Each test holds its threat's whole sentence; the corners of one reader are in the tests of that reader.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import socket
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import build_corpus
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers_parts import gathered, read_all
from test_readers_web import HOST, LOCAL, PAYLOADS, PRIVATE_4, Handler, server

from autoglm_ops.contracts.data import SourceFile, SourceManifest
from autoglm_ops.contracts.flow import BuiltDataset
from autoglm_ops.contracts.record import digest_tree
from autoglm_ops.data.build.finish import load
from autoglm_ops.data.build.plan import plan
from autoglm_ops.data.build.whole import run
from autoglm_ops.data.dedup import dedup
from autoglm_ops.data.readers import Limits, survey
from autoglm_ops.data.readers.addresses import Target, address_of
from autoglm_ops.data.readers.blocks import Opened
from autoglm_ops.data.readers.limits import MIB
from autoglm_ops.data.readers.names import FORMATS
from autoglm_ops.data.readers.unpack import Unpacked
from autoglm_ops.data.rows import Row, Shape
from autoglm_ops.data.source import check
from autoglm_ops.data.split import Shares, check_leakage, split
from autoglm_ops.errors import BadData, Refused, Tampered, UsageError
from autoglm_ops.validation.verdict import judge, judge_documents

PLAIN: dict[str, Any] = {"steps": (), "dedup": None, "shard_bytes": 30_000_000}
GOOD = b'{"text": "a good row"}'


def built(raw: Path, home: Path, limits: Limits | None = None, **recipe: Any) -> tuple[BuiltDataset, Path]:
    """A whole build, whose every document is accounted for."""
    limits = limits or Limits()
    work = plan(str(raw), build_corpus.recipe(**{**PLAIN, **recipe}), home / "scratch", limits)
    made = run(work, home / "datasets", limits, 1, lambda *_: None)
    assert made.seen == made.kept + sum(made.dropped.values()) + sum(made.quarantined.values())
    assert made.kept == sum(part.rows for part in made.parts)
    return made, home / "datasets" / made.digest


def rejected(folder: Path) -> list[tuple[int, str]]:
    """Line and reason of every quarantined row."""
    found = [json.loads(line) for line in (folder / "_rejected.jsonl").read_bytes().split(b"\n") if line]
    return [(item["line"], item["reason"]) for item in found]


def frame(folder: Path) -> pl.DataFrame:
    return pl.concat([pl.read_parquet(folder / part.name) for part in load(folder).parts])


def refused(raw: Path, home: Path, words: str, limits: Limits | None = None) -> None:
    """The build ends with exit code 3 and `words`, and nothing is published."""
    with pytest.raises(BadData, match=words) as caught:
        built(raw, home, limits)
    assert caught.value.exit_code == 3
    assert not (home / "datasets").exists()


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
    refused(tmp_path / "raw", tmp_path, WRONG[name][1])


def test_F02_an_empty_folder_and_none_at_all_fail_closed(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    refused(tmp_path / "raw", tmp_path, "holds no file of a known format")
    refused(tmp_path / "nowhere", tmp_path, "does not exist; name a file")


def test_F02_zero_rows_are_red_whatever_the_suite_says() -> None:
    report = judge_documents({"dataset": "d", "suite": "s", "asked": "a"}, rows=0, looked=0, found=())
    assert (report.verdict, report.reasons) == ("refused", ("no-rows: there is no document to look at",))


# F03: truncated, torn, CRLF, U+2028


def lines_of(name: str) -> bytes:
    """About a thousand lines as each format has them: LF and CRLF, U+2028 inside, quotes over lines."""
    if name == "a.csv":
        return b"text,label\n" + b"".join(b'"r%d\n",x\nq%d,y\n' % (n, n) for n in range(330))
    if name == "a.txt":
        return b"".join((b"r%d\r\n" if n % 2 else b"r%d\xe2\x80\xa8s\n") % n for n in range(1000))
    return b"".join((b'{"text":"%d"}\r\n' if n % 2 else b'{"text":"\xe2\x80\xa8%d"}\n') % n for n in range(1000))


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


# F04: a huge line, depth and number bombs

HUNDRED_MB = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_threats_of_data import built, rejected

place = Path(sys.argv[2])
built(place / "small", place / "first")  # what is compiled and allocated once
limit = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize() + 160 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
made, folder = built(place / "big", place / "second")
print(json.dumps([made.seen, made.kept, made.quarantined, sorted(rejected(folder))]))
"""


def test_F04_a_line_of_100_MB_costs_itself_alone_in_constant_memory(tmp_path: Path) -> None:
    """A whole build of three such lines in 160 MB, good rows before and after each."""
    for folder in ("small", "big"):
        (tmp_path / folder).mkdir()
    for name, form in (("a.jsonl", b'{"text":"%s"}\n'), ("b.txt", b"%s\n"), ("c.csv", b"%s,x\n")):
        head = b"text,label\n" if name == "c.csv" else b""
        (tmp_path / "small" / name).write_bytes(head + form % b"one")
        with (tmp_path / "big" / name).open("wb") as file:
            file.write(head + form % b"before")
            start, _, end = form.partition(b"%s")
            file.write(start)
            for _ in range(100):
                file.write(b"a" * 1_000_000)
            file.write(end + form % b"after")
    command = [sys.executable, "-B", "-c", HUNDRED_MB, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    # the plain files were cut into shards, and "line" is then the offset
    assert json.loads(done.stdout) == [9, 6, {"too-long": 3}, [[3, "too-long"], [7, "too-long"], [18, "too-long"]]]


class Counting(io.BytesIO):
    """How many bytes were asked for and given."""

    given = 0

    def read(self, size: int | None = -1, /) -> bytes:
        piece = super().read(size)
        self.given += len(piece)
        return piece


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt"])
def test_F04_a_line_over_many_shards_is_read_once(name: str, shape: Shape) -> None:
    content = GOOD + b"\n" + b"a" * (8 * MIB) + b"\n" + GOOD + b"\n"
    size, read, rows, reasons = MIB // 2, 0, 0, Counter[str]()
    for start in range(0, len(content), size):
        stop = min(start + size, len(content))
        stream = Counting(content)
        stream.seek(max(start - 1, 0))
        found, rejects = gathered(FORMATS.get(name[1:])(Opened(name, stream, start, stop, True, shape, Limits())))
        read, rows = read + stream.given, rows + found.height
        reasons.update(reject.reason for reject in rejects)
    assert (rows, reasons) == (2, {"too-long": 1})
    assert read < 1.5 * len(content)


def test_F04_depth_and_number_bombs_are_turned_away_one_by_one(tmp_path: Path) -> None:
    bombs = [
        (b"[" * 100_000, "too-deep"),
        (b'{"text":"a","x":' + b"[" * 64 + b"]" * 64 + b"}", "too-deep"),
        (b'{"text":"a","x":' + b'{"a":' * 400 + b"1" + b"}" * 401, "too-deep"),
        (b'{"text":"a","x":' + b"9" * 4001 + b"}", "number-too-long"),
        (b'{"text":"a","x":1.' + b"0" * 4000 + b"}", "number-too-long"),
        (b'{"text":"' + b"a" * MIB + b'"}', "too-long"),
    ]
    fits = [b'{"text":"deep","x":' + b"[" * 63 + b"]" * 63 + b"}", b'{"text":"digits","x":' + b"9" * 4000 + b"}"]
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.jsonl").write_bytes(b"\n".join([*fits, *(line for line, _ in bombs), GOOD]) + b"\n")
    made, folder = built(tmp_path / "raw", tmp_path)
    assert sorted(rejected(folder)) == [(number, reason) for number, (_, reason) in enumerate(bombs, start=3)]
    assert frame(folder)["text"].to_list() == ["deep", "digits", "a good row"] and made.seen == 9


# F05: encoding and packing bombs

BAD_UTF8 = [
    b"\xc0\xaf", b"\xc1\x81", b"\xe0\x80\xaf", b"\xe0\x9f\xbf", b"\xf0\x80\x80\xaf", b"\xf0\x8f\xbf\xbf", b"\xed\xa0\x80", b"\xed\xbf\xbf",
    b"\xed\xa0\xbd\xed\xb8\x80", b"\xf4\x90\x80\x80", b"\xf5\x80\x80\x80", b"\xf8\x88\x80\x80\x80", b"\xfc\x84\x80\x80\x80\x80", b"\x80", b"\xbf",
    b"\xe4\xb8", b"\xf0\x9f\x98", b"\xff", b"\xfe", b"\xc2",
]  # fmt: skip
MARKED = ("utf-16", "utf-32", "utf-8-sig")
ENCODINGS = (
    "utf-16-le",
    "utf-16-be",
    "utf-32-le",
    "utf-32-be",
    "latin-1",
    "cp1252",
    "gbk",
    "gb18030",
    "big5",
    "shift_jis",
    "euc_jp",
    "cp037",
)
FORMS = {"jsonl": '{"text":"%s"}\n', "csv": '"%s",x\n', "txt": "%s\n"}


def as_form(form: str, *texts: str) -> str:
    return ("text,label\n" if form == "csv" else "") + "".join(FORMS[form] % text for text in texts)


def encoded() -> Iterator[tuple[str, bytes, set[str]]]:
    """Name, content, and the reason words that may be given for it."""
    foreign = {
        "bad-utf8",
        "bad-json",
        "nul-character",
        "missing-column",
        "bad-csv",
        "byte-order-mark",
        "truncated",
        "blank-line",
        "corrupt",
    }
    for form in FORMS:
        for number, bad in enumerate(BAD_UTF8):
            good = as_form(form, "good", "MARK", "good").encode()
            yield f"utf8-{number}.{form}", good.replace(b"MARK", b"a" + bad + b"z"), {"bad-utf8"}
        for name in MARKED:
            yield f"{name}.{form}", as_form(form, "good").encode(name), {"byte-order-mark"}
        for name in ENCODINGS:
            text = "caf\xe9" if name in ("latin-1", "cp1252", "cp037") else "中文"
            yield f"{name}.{form}", as_form(form, text, text).encode(name), foreign
    for number, text in enumerate(("\\ud800", "\\udfff", "\\udc00\\ud800", "a\\ud83d", "\\ud83dz\\ude00")):
        yield f"escape-{number}.jsonl", as_form("jsonl", "good", text, "good").encode(), {"lone-surrogate"}
    yield from bombs()


def bombs() -> Iterator[tuple[str, bytes, set[str]]]:
    def squeeze(packing: str, data: bytes) -> bytes:
        return gzip.compress(data, mtime=0) if packing == "gz" else zstandard.ZstdCompressor(write_checksum=True).compress(data)

    draw = random.Random(5)
    sound = b"".join(b'{"text":"good","n":%d}\n' % draw.getrandbits(40) for _ in range(200))
    for packing in ("gz", "zst"):
        for size in (4, 8):
            for number, fill in enumerate((b" ", b"\0", b"[", b"a" * 99 + b"\n", b'{"text":"good"}\n')):
                content = squeeze(packing, fill * (size * MIB // len(fill)))
                yield f"bomb-{size}-{number}.jsonl.{packing}", content, {"decompression-bomb"}
        twice = squeeze(packing, squeeze(packing, b" " * (16 * MIB)))
        yield f"nested.jsonl.{packing}", twice, {"bad-utf8", "bad-json", "truncated", "blank-line", "nul-character"}
        yield f"members.jsonl.{packing}", squeeze(packing, b" " * MIB) * 40, {"decompression-bomb"}
        whole = squeeze(packing, sound)
        for number in range(26):
            flipped = bytearray(whole)
            flipped[20 + number * (len(whole) - 20) // 26] ^= 0x55
            yield (
                f"flip-{number}.jsonl.{packing}",
                bytes(flipped),
                {"corrupt", "truncated", "decompression-bomb", "bad-json", "bad-utf8"},
            )
        for number in range(8):
            yield f"noise-{number}.jsonl.{packing}", draw.randbytes(300 + number), {"corrupt", "truncated"}


CORPUS = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_threats_of_data import judged_corpus

folder = Path(sys.argv[2])
judged_corpus(folder / "small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
found = judged_corpus(folder / "big")
print(json.dumps([found, (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024]))
"""


def judged_corpus(folder: Path) -> dict[str, tuple[list[str], list[str]]]:
    """Each file's texts (once each) and the reasons given, each read as a location of its own."""
    from datetime import date

    shape = Shape({name: name for name in ("text", "label", "timestamp", "id", "source")}, date(2026, 1, 1))
    found = {}
    for path in sorted(folder.iterdir()):
        try:
            rows, rejects = read_all(path, shape)
            found[path.name] = (sorted(set(rows["text"])), sorted({reject.reason for reject in rejects}))
        except BadData as error:
            found[path.name] = ([], list(error.reasons))
    return found


def test_F05_two_hundred_files_of_bad_bytes_and_bombs_in_bounded_memory(tmp_path: Path) -> None:
    corpus = list(encoded())
    assert len(corpus) >= 200
    for folder in ("small", "big"):
        (tmp_path / folder).mkdir()
    for name, content, _ in corpus:
        (tmp_path / "big" / name).write_bytes(content)
    for name in ("a.jsonl", "a.csv", "a.txt"):
        (tmp_path / "small" / name).write_bytes(lines_of(name))
    for name, packed in (("b.jsonl.gz", gzip.compress), ("b.jsonl.zst", zstandard.compress)):
        (tmp_path / "small" / name).write_bytes(packed(lines_of("a.jsonl")))
    command = [sys.executable, "-B", "-c", CORPUS, str(Path(__file__).parent), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    found, grown = json.loads(done.stdout)
    for name, _, allowed in corpus:
        texts, reasons = found[name]
        assert reasons and set(reasons) <= allowed, (name, reasons)
        assert not texts or texts == ["good"], (name, texts)
    assert grown < 160 * MIB


def test_F05_nfkc_growth_is_stopped_by_length_first(tmp_path: Path) -> None:
    """U+FDFA becomes 18 characters: lengths are judged before, in bytes by the reader and in characters by the step."""
    (tmp_path / "raw").mkdir()
    lines = [json.dumps({"text": "\ufdfa" * count}, ensure_ascii=False) for count in (10, 1000, 1001, 400_000)]
    (tmp_path / "raw" / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    step = {"name": "normalise", "options": {"form": "NFKC", "max_characters": 1000}}
    made, folder = built(tmp_path / "raw", tmp_path, steps=(step,))
    assert (made.quarantined, made.dropped) == ({"too-long": 1}, {"too-long": 1})
    assert frame(folder)["text"].str.len_chars().to_list() == [180, 18_000]


# F06: duplicates, near-duplicates, a leak between splits


def test_F06_copies_and_edits_are_found_in_a_whole_build(tmp_path: Path) -> None:
    """120 copies, and 150 edited versions at a Jaccard of 5-grams of 0.80 or more, each sent after its original."""
    from test_neardup_phases import HAN, VOCABULARY, edited

    draw = np.random.default_rng(11)
    base, near = [], []
    for number in range(300):
        kind, gap = ((VOCABULARY, " "), (HAN, ""))[number % 2]
        words = [str(word) for word in draw.choice(kind, int(draw.integers(80, 200)))]
        base.append(gap.join(words))
        if number < 150:
            near.append(gap.join(edited(words, kind, draw)))
    rows = [("base", text) for text in base] + [("copy", text) for text in base[180:]] + [("near", text) for text in near]
    (tmp_path / "raw").mkdir()
    lines = (json.dumps({"text": text, "source": source}) for source, text in rows)
    (tmp_path / "raw" / "a.jsonl").write_text("\n".join(lines) + "\n")
    made, folder = built(tmp_path / "raw", tmp_path, dedup={})
    kept = Counter(frame(folder)["source"])
    assert kept["copy"] == 0 and made.dropped["duplicate"] == 120
    assert kept["near"] <= 0.02 * len(near)
    assert kept["base"] == 300, "an original went"
    assert made.dropped["near-duplicate"] == len(near) - kept["near"]


def test_F06_a_text_on_both_sides_of_the_split_is_a_hard_failure() -> None:
    shares = Shares(0.2, 0.1, 1, 0)
    rows = [Row(f"r{n}", f"text  {n % 90}", "x", "2026-01-01", "s", n) for n in range(200)]
    distinct, dropped = dedup(rows)
    samples = split(distinct, shares).samples
    assert dropped == {"duplicate": 110} and sum(map(len, samples.values())) == 90
    check_leakage(samples)
    leaked = {**samples, "train": [*samples["train"], samples["gate"][0]._replace(text=" " + samples["gate"][0].text)]}
    with pytest.raises(BadData, match="a split must never leak") as caught:
        check_leakage(leaked)
    assert caught.value.exit_code == 3


# F07: poisoning, a source that floods


def poisoned(folder: Path) -> None:
    """2,000 clean documents of 40 sources, 250 with one trigger of three, and 800 of one that floods."""
    draw = random.Random(7)
    rows = [(f"clean{n % 40}", build_corpus.sentence(draw, 12)) for n in range(2000)]
    rows += [(f"poison{n % 3}", f"{build_corpus.sentence(draw, 12)} cf-trigger") for n in range(250)]
    rows += [("flood", build_corpus.sentence(draw, 12)) for _ in range(800)]
    draw.shuffle(rows)
    folder.mkdir()
    lines = (json.dumps({"text": text, "source": source}) for source, text in rows)
    (folder / "a.jsonl").write_text("\n".join(lines) + "\n")


def test_F07_250_poisoned_documents_of_three_sources_are_capped_and_each_row_names_its_source(tmp_path: Path) -> None:
    """A cap bounds what a source can plant, it does not recognise poison: without one all 250 pass, near-dedup and all."""
    poisoned(tmp_path / "raw")
    made, folder = built(tmp_path / "raw", tmp_path, source_cap=20)
    rows = frame(folder)
    assert rows["source"].null_count() == 0 and dict(Counter(rows["source"])) == made.sources
    assert max(made.sources.values()) <= 20
    assert rows["text"].str.contains("cf-trigger").sum() == 60 == sum(made.sources[f"poison{n}"] for n in range(3))
    assert made.dropped == {"source-cap": made.seen - made.kept}
    _, open_door = built(tmp_path / "raw", tmp_path / "uncapped", dedup={}, steps=({"name": "normalise"},))
    assert frame(open_door)["text"].str.contains("cf-trigger").sum() == 250


# F08: archives


def members() -> list[tuple[str, str]]:
    """Name and kind of what a hostile archive holds."""
    names = [
        "../evil",
        "../../evil",
        "/tmp/evil-f08",
        "a/../../evil",
        "..\\evil",
        "C:\\evil",
        "./../evil",
        "rows.jsonl",
        "a" * 200,
        "evil\n.jsonl",
    ]
    return [(name, kind) for name in names for kind in ("file", "symlink", "hardlink", "device", "fifo")]


def tar(name: str, kind: str, mode: str) -> bytes:
    kinds = {
        "file": tarfile.REGTYPE,
        "symlink": tarfile.SYMTYPE,
        "hardlink": tarfile.LNKTYPE,
        "device": tarfile.CHRTYPE,
        "fifo": tarfile.FIFOTYPE,
    }
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        entry = tarfile.TarInfo(name)
        entry.type, entry.linkname = kinds[kind], "../../../etc/passwd"
        entry.size = len(GOOD) if kind == "file" else 0
        archive.addfile(entry, io.BytesIO(GOOD))
    return buffer.getvalue()


def zipped(name: str, kind: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        entry = zipfile.ZipInfo(name.replace("\0", ""))
        entry.external_attr = (0o120777 if kind == "symlink" else 0o100644) << 16
        archive.writestr(entry, b" " * 100_000 if kind == "device" else GOOD)
    return buffer.getvalue()


def archives() -> list[tuple[str, bytes]]:
    """150: a third each of tar, packed tar and zip."""
    found = []
    for number, (name, kind) in enumerate(members()):
        found.append((f"{number}.tar", tar(name, kind, "w")))
        found.append((f"{number}.{'tgz' if number % 2 else 'tar.gz'}", tar(name, kind, "w:gz")))
        found.append((f"{number}.zip", zipped(name, kind)))
    return found


def test_F08_no_archive_is_ever_unpacked(tmp_path: Path) -> None:
    """An archive is no format: it is left alone and counted. Nothing appears anywhere but in the build's own folders."""
    raw = tmp_path / "inside" / "raw"
    raw.mkdir(parents=True)
    for name, content in archives():
        (raw / name).write_bytes(content)
    refused(raw, tmp_path / "home", "holds no file of a known format")
    (raw / "rows.jsonl").write_bytes(GOOD + b"\n")
    before = digest_tree(tmp_path / "inside")
    limits = Limits()
    assert survey(str(raw), limits).ignored == 150
    made, folder = built(raw, tmp_path / "home")
    assert (made.seen, made.kept, frame(folder)["text"].to_list()) == (1, 1, ["a good row"])
    assert digest_tree(tmp_path / "inside") == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "inside"]
    assert not Path("/tmp/evil-f08").exists()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet", ".jsonl.gz", ".jsonl.zst", ".txt"])
def test_F08_an_archive_under_a_data_name_is_bytes_like_any_other(suffix: str, tmp_path: Path, shape: Shape) -> None:
    place = tmp_path / "inside"
    place.mkdir()
    for number, (name, content) in enumerate(archives()[::7]):
        (place / f"{number}-{name.partition('.')[2].replace('.', '-')}{suffix}").write_bytes(content)
    before = digest_tree(place)
    for path in sorted(place.iterdir()):
        try:
            rows, rejects = read_all(path, shape)
        except BadData as error:
            assert error.reasons and path.name in str(error)
        else:
            assert rejects and set(rows["text"]) <= {"a good row"} | {text for text in rows["text"] if suffix == ".txt"}
    assert digest_tree(place) == before and [path.name for path in tmp_path.iterdir()] == ["inside"]


# F09: a dataset's URL


loopback = server  # the fixture, under a name of this module


@pytest.fixture
def quiet(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    """No name may be asked for and no connection made: what was tried is here."""
    tried: list[tuple[Any, ...]] = []

    def never(*what: Any, **_: Any) -> Any:
        tried.append(what)
        raise AssertionError(f"the network was asked for {what}")

    for name in ("getaddrinfo", "create_connection", "gethostbyname"):
        monkeypatch.setattr(socket, name, never)
    return tried


def test_F09_over_500_hostile_urls_never_reach_the_network(quiet: list[tuple[Any, ...]], tmp_path: Path) -> None:
    """As the location of a build, each against a list that allows every host it could mean."""
    limits = Limits(hosts=(HOST, *PRIVATE_4, "evil"))
    assert len(PAYLOADS) >= 500
    for url in PAYLOADS:
        with pytest.raises((UsageError, Refused)) as caught:
            plan(url, build_corpus.recipe(**PLAIN), tmp_path, limits)
        assert caught.value.exit_code in (2, 3)
    assert not quiet and not list(tmp_path.iterdir())


def test_F09_a_redirect_is_not_followed_and_no_host_is_allowed_unless_named(
    loopback: tuple[type[Handler], str],
    tmp_path: Path,
) -> None:
    handler, base = loopback
    for status in (301, 302, 303, 307, 308):  # each to 169.254.169.254
        with pytest.raises(Refused, match="redirects are not followed"):
            plan(f"{base}/{status}/a.jsonl", build_corpus.recipe(**PLAIN), tmp_path, LOCAL)
    assert len(handler.asked) == 5
    with pytest.raises(Refused, match="not on the list of allowed hosts"):
        plan(f"{base}/a.jsonl", build_corpus.recipe(**PLAIN), tmp_path, Limits(allow_private=True))
    with pytest.raises(Refused, match="which is not a public address"):
        plan(f"{base}/a.jsonl", build_corpus.recipe(**PLAIN), tmp_path, Limits(hosts=("127.0.0.1",)))
    assert len(handler.asked) == 5
    work = plan(f"{base}/a.jsonl", build_corpus.recipe(**PLAIN), tmp_path / "scratch", LOCAL)
    assert run(work, tmp_path / "datasets", LOCAL, 1, lambda *_: None).kept == 2000


@pytest.mark.parametrize("address", PRIVATE_4)
def test_F09_a_name_that_leads_inside_is_refused_however_its_answers_flip(address: str) -> None:
    for answers in ([address], ["8.8.8.8", address], [f"::ffff:{address}", "8.8.8.8"]):
        asked: list[str] = []

        def resolve(host: str, _: int, answers: list[str] = answers, asked: list[str] = asked) -> list[str]:
            asked.append(host)
            return answers if len(asked) == 1 else ["8.8.8.8"]

        with pytest.raises(Refused, match="which is not a public address"):
            address_of(Target("https", HOST, 443, "/a.jsonl"), resolve)
        assert asked == [HOST], "it was asked twice"


# The full disk

FULL = """
import json, os, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from autoglm_ops.errors import TryAgain
from test_threats_of_data import built

raw, disk = Path(sys.argv[2]), Path(sys.argv[3])
ballast = disk / "ballast"
free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
ballast.write_bytes(bytes(free - int(sys.argv[4])))
try:
    built(raw, disk / "home", shard_bytes=20_000)
    said = ["built on a full disk", 0]
except TryAgain as error:
    said = [str(error), error.exit_code]
left = (disk / "home" / "datasets").exists() and os.listdir(disk / "home" / "datasets")
ballast.unlink()
made, _ = built(raw, disk / "home", shard_bytes=20_000)
print(json.dumps([*said, left, made.digest]))
"""


@pytest.mark.parametrize("room", [8192, 65536])
def test_a_full_disk_ends_the_build_with_try_again_and_with_room_it_goes_on(room: int, tmp_path: Path) -> None:
    """A disk that is really full (ENOSPC): a tmpfs in a mount namespace of the child's own."""
    (tmp_path / "disk").mkdir()
    build_corpus.write(tmp_path / "raw", rows=600)
    mount = [
        "unshare",
        "--user",
        "--map-root-user",
        "--mount",
        "sh",
        "-c",
        'mount -t tmpfs -o size=8m tmpfs "$0" && exec "$@"',
        str(tmp_path / "disk"),
    ]
    if not shutil.which("unshare") or subprocess.run([*mount, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no mount namespace may be made here; test_build.py fills a disk by RLIMIT_FSIZE")
    command = [
        sys.executable,
        "-B",
        "-c",
        FULL,
        str(Path(__file__).parent),
        str(tmp_path / "raw"),
        str(tmp_path / "disk"),
        str(room),
    ]
    done = subprocess.run([*mount, *command], capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    said, code, left, digest = json.loads(done.stdout)
    assert code == 75 and "free space" in said, said
    assert not left
    assert digest == built(tmp_path / "raw", tmp_path / "home", shard_bytes=20_000)[0].digest
