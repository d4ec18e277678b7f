"""What is found at a location, and that reading it takes the same memory whatever is in it (threats F02, F04)."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest

from autoglm_ops.data.readers import Blob, Limits, survey
from autoglm_ops.data.readers.names import kind_of
from autoglm_ops.errors import BadData


def make(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b'{"text":"a"}\n')
    return root


def names(location: Path) -> list[str]:
    return [blob.name for blob in survey(str(location), Limits()).blobs]


def test_a_folder_is_listed_by_name_without_what_is_hidden(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make(
        tmp_path,
        "b.jsonl",
        "a/c.csv.gz",
        "B.txt.zst",
        ".hidden.jsonl",
        ".git/x.jsonl",
        "_SUCCESS",
        "_temporary/y.jsonl",
        "z.pdf",
    )
    with caplog.at_level(logging.WARNING):
        place = survey(str(tmp_path), Limits())
    assert [blob.name for blob in place.blobs] == ["B.txt.zst", "a/c.csv.gz", "b.jsonl"]
    assert place.ignored == 1
    assert "1 files are of no known format" in caplog.text
    assert place.blobs[2] == Blob("b.jsonl", 13, hashlib.sha256(b'{"text":"a"}\n').hexdigest())


def test_of_a_hugging_face_dataset_only_the_data_is_read(tmp_path: Path) -> None:
    make(tmp_path, "README.md", "LICENSE.txt", "notes.jsonl", "data/train-00000-of-00002.jsonl.zst", "data/test.parquet")
    assert names(tmp_path) == ["data/test.parquet", "data/train-00000-of-00002.jsonl.zst"]
    (tmp_path / "README.md").unlink()
    assert names(tmp_path)[:1] == ["LICENSE.txt"]


def test_links_to_files_are_followed_and_pipes_are_not_opened(tmp_path: Path) -> None:
    make(tmp_path, "blobs/abc", "snapshot/other.jsonl")
    (tmp_path / "snapshot" / "a.jsonl").symlink_to("../blobs/abc")
    (tmp_path / "snapshot" / "gone.jsonl").symlink_to("../blobs/gone")
    os.mkfifo(tmp_path / "snapshot" / "pipe.jsonl")
    assert names(tmp_path / "snapshot") == ["a.jsonl", "other.jsonl"]


def test_one_file_is_a_location(tmp_path: Path) -> None:
    assert names(make(tmp_path, "a.jsonl") / "a.jsonl") == ["a.jsonl"]


def test_nothing_to_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadData, match="does not exist; name a file, a folder"):
        survey(str(tmp_path / "no"), Limits())
    with pytest.raises(BadData, match="holds no file of a known format"):
        survey(str(make(tmp_path, "a.pdf")), Limits())
    (tmp_path / "two\nlines.jsonl").write_bytes(b"{}")
    with pytest.raises(BadData, match=r"'two\\nlines.jsonl' is not printable"):
        survey(str(tmp_path), Limits())


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.jsonl", (".jsonl", "")),
        ("deep/A.JSONL.GZ", (".jsonl", ".gz")),
        ("a.csv.zst", (".csv", ".zst")),
        ("a.parquet", (".parquet", "")),
        ("a.parquet.gz", None),
        ("a.gz", None),
        ("jsonl", None),
        (".jsonl", None),
        ("a.jsonl.bz2", None),
    ],
)
def test_a_name_says_its_kind(name: str, kind: tuple[str, str] | None) -> None:
    assert kind_of(name) == kind


PROBE = """
import json, resource, sys
from collections import Counter
from datetime import date
from autoglm_ops.data.readers import Limits, Rejected, plan, read, survey
from autoglm_ops.data.rows import Shape
import polars, pyarrow, numba, zstandard

shape = Shape({name: name for name in ("text", "label", "timestamp", "id", "source")}, date(2026, 1, 1))
limits = Limits(ratio=10**9)
place = survey(sys.argv[1], limits)
def size():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
small = survey(sys.argv[2], limits)
for shard in plan(small.blobs, 1 << 40):  # what is compiled and allocated once
    list(read(shard, sys.argv[2], shape, limits))
limit = size() + 160 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
rows, rejects = 0, Counter()
for shard in plan(place.blobs, 1 << 40):
    for item in read(shard, sys.argv[1], shape, limits):
        if isinstance(item, Rejected):
            rejects[f'{item.source} {item.reason}'] += 1
        else:
            rows += item.height
print(json.dumps([rows, rejects]))
"""


@pytest.mark.slow  # a line of 100 MB is in the suite
def test_a_line_of_half_a_gibibyte_is_read_in_constant_memory(tmp_path: Path) -> None:
    """As a sparse file, so that it is only read; and another out of 12 kB of Zstandard, with the bomb's fuse taken out."""
    import zstandard

    small, big = make(tmp_path / "small", "a.jsonl", "b.txt", "c.csv", "d.jsonl.zst"), tmp_path / "big"
    (small / "c.csv").write_bytes(b"text\na\n")
    (small / "d.jsonl.zst").write_bytes(zstandard.compress(b'{"text":"a"}\n'))
    big.mkdir()
    for name in ("a.jsonl", "b.txt"):
        with (big / name).open("wb") as file:
            file.write(b'{"text":"before"}\n')
            file.seek(1 << 29 if name == "a.jsonl" else 1 << 27)
            file.write(b'\n{"text":"after"}\n')
    packer = zstandard.ZstdCompressor().compressobj()
    with (big / "d.jsonl.zst").open("wb") as file:
        for _ in range(128):
            file.write(packer.compress(b"[" * (1 << 20)))
        file.write(packer.compress(b'\n{"text":"after"}\n') + packer.flush())
    with (big / "c.csv").open("wb") as file:
        file.write(b'text,label\nbefore,pos\n"')
        file.write(b'a","b\n' * (1 << 19))  # fields without end, in one row without end
    (big / "e.jsonl").write_bytes(b"\n" * 600_000 + b'{"text":"after"}\n')
    done = subprocess.run([sys.executable, "-c", PROBE, str(big), str(small)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    rows, rejects = json.loads(done.stdout)
    assert rejects.pop("c.csv too-long") + rejects.pop("c.csv truncated", 0) > 1 << 18
    assert rejects.pop("e.jsonl blank-line") == 600_000
    assert (rows, rejects) == (7, {f"{name} too-long": 1 for name in ("a.jsonl", "b.txt", "d.jsonl.zst")})
