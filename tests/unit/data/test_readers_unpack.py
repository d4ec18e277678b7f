"""Packed files: cut at every byte, damaged, and bombs (threats F03, F05)."""

from __future__ import annotations

import gzip
import io
import json
import random
from pathlib import Path

import pytest
import zstandard
from readers_parts import gathered, read_all, reasons, texts

from autoglm_ops.data.readers import Limits, jsonl
from autoglm_ops.data.readers.blocks import Opened
from autoglm_ops.data.readers.limits import MIB
from autoglm_ops.data.readers.unpack import Unpacked
from autoglm_ops.data.rows import Shape
from autoglm_ops.errors import BadData

RANDOM = random.Random(5)
ROWS = [json.dumps({"text": f"row {number} {RANDOM.random()}"}).encode() + b"\n" for number in range(1000)]
PLAIN = b"".join(ROWS)


def zstd(data: bytes, **options: object) -> bytes:
    parameters = zstandard.ZstdCompressionParameters(**options)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(data)


def frames_and_more() -> bytes:
    """Two frames with a skippable one between them, as pzstd writes."""
    return zstd(PLAIN[:20_000]) + b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstd(PLAIN[20_000:], write_checksum=1)


STEP = 37  # so that each part of a frame is cut somewhere; the plain formats are cut at every byte
PACKED = {
    ".gz": gzip.compress(PLAIN, mtime=0),
    ".zst": zstd(PLAIN, write_checksum=1),
    "two.gz": gzip.compress(PLAIN[:30_001], mtime=0) + gzip.compress(PLAIN[30_001:], mtime=0),
    "two.zst": frames_and_more(),
}


def opened(packed: bytes, name: str, shape: Shape, limits: Limits | None = None) -> Opened:
    limits = limits or Limits()
    stream = Unpacked(io.BytesIO(packed), name[name.rindex(".") :], name, limits)
    return Opened(name, stream, 0, len(packed), False, shape, limits)


@pytest.mark.parametrize("name", PACKED)
def test_a_packed_file_gives_what_the_plain_one_gives(name: str, tmp_path: Path, shape: Shape) -> None:
    (tmp_path / f"rows.jsonl{name[-4:] if 'zst' in name else '.gz'}").write_bytes(PACKED[name])
    frame, rejects = read_all(tmp_path, shape)
    assert texts(frame) == [json.loads(row)["text"] for row in ROWS]
    assert not rejects
    assert frame["line"].to_list() == list(range(1, 1001))


@pytest.mark.parametrize("name", PACKED)
def test_cut_at_every_byte_it_gives_whole_rows_and_is_called_truncated(name: str, shape: Shape) -> None:
    whole, _ = gathered(jsonl.read(opened(PACKED[name], name, shape)))
    packed = PACKED[name]
    borders = {len(PACKED[".gz"]), *member_ends(name)}
    for cut in range(1, len(packed), STEP):
        if cut in borders:
            continue
        frame, rejects = gathered(jsonl.read(opened(packed[:cut], name, shape)))
        assert frame.equals(whole[: frame.height])
        assert reasons(rejects) == ["truncated"]


def member_ends(name: str) -> set[int]:
    """Where a packed file is whole already: nobody can tell that a member is missing."""
    if name == "two.gz":
        return {len(gzip.compress(PLAIN[:30_001], mtime=0))}
    if name == "two.zst":
        first = len(zstd(PLAIN[:20_000]))
        return {first, first + 12}
    return set()


@pytest.mark.parametrize("name", [".gz", ".zst"])
def test_a_flipped_byte_is_corrupt_or_truncated_and_never_silent(name: str, shape: Shape) -> None:
    start = 10 if name == ".gz" else 4  # flags and times of the header carry no data
    for place in range(start, len(PACKED[name]), 97):
        packed = bytearray(PACKED[name])
        packed[place] ^= 0x55
        try:
            _, rejects = gathered(jsonl.read(opened(bytes(packed), name, shape)))
            assert "truncated" in reasons(rejects)
        except BadData as error:
            assert error.reasons[0] in ("corrupt", "decompression-bomb")


@pytest.mark.parametrize("name", [".gz", ".zst"])
def test_a_bomb_is_refused_early(name: str, shape: Shape) -> None:
    zeros = b" " * (64 * MIB)
    packed = gzip.compress(zeros) if name == ".gz" else zstd(zeros)
    stream = Unpacked(io.BytesIO(packed), name, f"bomb{name}", Limits())
    got = 0
    with pytest.raises(BadData, match=rf"bomb\{name} unpacks to \d+ bytes and more") as caught:
        while piece := stream.read(MIB):
            got += len(piece)
    assert caught.value.reasons == ("decompression-bomb",)
    assert got <= 8 * MIB if name == ".gz" else got <= 2 * MIB


def test_the_absolute_size_is_capped_too(shape: Shape) -> None:
    with pytest.raises(BadData, match="at most 5000 bytes"):
        gathered(jsonl.read(opened(PACKED[".gz"], ".gz", shape, Limits(unpacked=5000))))


@pytest.mark.parametrize(("name", "tail"), [(".gz", b"more"), (".zst", b"more"), (".gz", b"\0\0x"), (".zst", b"\0\0\0\0")])
def test_what_follows_the_packed_data_is_not_ignored(name: str, tail: bytes, shape: Shape) -> None:
    try:
        _, rejects = gathered(jsonl.read(opened(PACKED[name] + tail, name, shape)))
        assert reasons(rejects) == ["truncated"]
    except BadData as error:
        assert error.reasons == ("corrupt",)


def test_zeros_after_gzip_are_padding(shape: Shape) -> None:
    frame, rejects = gathered(jsonl.read(opened(PACKED[".gz"] + bytes(100_000), ".gz", shape)))
    assert (frame.height, rejects) == (1000, [])


def test_other_bytes_under_a_packed_name_are_corrupt(shape: Shape) -> None:
    for name in (".gz", ".zst"):
        with pytest.raises(BadData, match="is not whole") as caught:
            gathered(jsonl.read(opened(PLAIN, name, shape)))
        assert caught.value.reasons == ("corrupt",)
