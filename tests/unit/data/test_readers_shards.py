"""Shards cover every byte once, and however a file is cut its documents and their ids are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from readers_parts import read_all, reasons, texts

from autoglm_ops.data.readers import Blob, Limits, Part, plan, read
from autoglm_ops.data.readers.shards import Shard
from autoglm_ops.data.rows import Shape
from autoglm_ops.errors import UsageError

NAMES = st.sampled_from(["a.jsonl", "b.txt", "c.csv", "d.parquet", "e.jsonl.gz", "f.txt.zst", "g/h.ndjson"])


@settings(max_examples=60)
@given(sizes=st.dictionaries(NAMES, st.integers(0, 300), min_size=1), most=st.integers(1, 200), cut=st.booleans())
def test_every_byte_is_in_one_shard(sizes: dict[str, int], most: int, cut: bool) -> None:
    shards = plan((Blob(name, size, "") for name, size in sizes.items()), most, cut)
    assert [shard.number for shard in shards] == list(range(len(shards)))
    for name, size in sizes.items():
        parts = [part for shard in shards for part in shard.parts if part.blob.name == name]
        assert [part.start for part in parts] == [0, *(part.stop for part in parts[:-1])]
        assert parts[-1].stop == size
        assert len(parts) == 1 or (cut and name.endswith(("a.jsonl", "b.txt", "h.ndjson")))
    for shard in shards:
        assert shard.size <= most or (len(shard.parts) == 1 and not shard.parts[0].cut)


def test_a_shard_must_hold_something() -> None:
    with pytest.raises(UsageError, match="at least one byte, but got 0"):
        plan([], 0)


LINES = st.lists(
    st.sampled_from([b'{"text":"one"}', b'{"text":"two","id":"x"}', b"", b"{", b'{"text":"' + b"l" * 120 + b'"}', b" " * 60]),
    min_size=1,
    max_size=12,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25, deadline=None)
@given(lines=LINES, most=st.integers(25, 120), ended=st.booleans(), form=st.sampled_from(["jsonl", "txt"]))
def test_the_cut_does_not_change_what_is_read(
    lines: list[bytes], most: int, ended: bool, form: str, tmp_path: Path, shape: Shape
) -> None:
    path = tmp_path / f"rows.{form}"
    path.write_bytes(b"\n".join([b'{"text":"first"}', *lines]) + b"\n" * ended)
    limits = Limits(line=100)
    whole, refused = read_all(path, shape, limits)
    cut, others = read_all(path, shape, limits, most)
    assert cut.drop("line").equals(whole.drop("line"))
    assert [(reject.offset, reject.reason) for reject in others] == [(reject.offset, reject.reason) for reject in refused]


def test_in_a_cut_file_line_is_the_offset(tmp_path: Path, shape: Shape) -> None:
    path = tmp_path / "rows.jsonl"
    raws = [json.dumps({"text": f"number {place}"}).encode() + b"\n" for place in range(1000)]
    path.write_bytes(b"".join(raws))
    whole, _ = read_all(path, shape)
    cut, _ = read_all(path, shape, most=1000)
    assert whole["line"].to_list() == list(range(1, 1001))
    assert cut["line"].to_list() == [sum(map(len, raws[:place])) for place in range(1000)]
    assert whole.drop("line").equals(cut.drop("line"))
    assert whole["id"].n_unique() == 1000


def test_what_cannot_be_cut_is_refused(tmp_path: Path, shape: Shape) -> None:
    (tmp_path / "rows.csv").write_bytes(b"text\na\nb\n")
    with pytest.raises(UsageError, match=r"rows\.csv: bytes 3 to 9 of it are no documents"):
        list(read(Shard(0, (Part(Blob("rows.csv", 9, ""), 3, 9),)), str(tmp_path), shape, Limits()))


def test_a_line_that_is_too_long_costs_itself_alone(tmp_path: Path, shape: Shape) -> None:
    path = tmp_path / "rows.txt"
    path.write_bytes(b"one\n" + b"x" * 5000 + b"\ntwo\n")
    for most in (10_000, 1000):
        frame, rejects = read_all(path, shape, Limits(line=100), most)
        assert texts(frame) == ["one", "two"]
        assert reasons(rejects) == ["too-long"]
        assert rejects[0].offset == 4
