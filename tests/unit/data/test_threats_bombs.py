"""Threats F04 and F05 against the real engine, each by its id: huge lines, depth, encodings and packings that explode.

Each test holds its threat's whole sentence; the corners of one reader are in the tests of that reader.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard
from readers_parts import gathered, read_all
from threat_parts import GOOD, built, frame, lines_of, rejected

from autoglm_ops.data.readers import Limits
from autoglm_ops.data.readers.blocks import Opened
from autoglm_ops.data.readers.limits import MIB
from autoglm_ops.data.readers.names import FORMATS
from autoglm_ops.data.rows import Shape
from autoglm_ops.errors import BadData

# F04: a huge line, depth and number bombs

HUNDRED_MB = """
import json, resource, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from threat_parts import built, rejected

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
from test_threats_bombs import judged_corpus

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
