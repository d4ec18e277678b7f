"""Archives that somebody sent (threat F08): what is plain comes out whole, what is hostile is refused whole, nothing goes elsewhere."""

from __future__ import annotations

import gzip
import io
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.record import digest_path, digest_tree
from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.store.archive import Limits, unpack

FILES = {"job.py": b"print('hello')\n", "pkg/__init__.py": b"", "pkg/data.bin": bytes(range(256)) * 4}
SMALL = Limits(entries=20, unpacked=64 << 10, name=300)
NAMES = (
    "../evil", "../../evil", "a/../../evil", "./../evil", "/tmp/evil-f08", "//evil", "..", "a/..", "", "..\\evil", "C:\\evil",
    "C:evil", "evil\n", "evil\x07", "a\tb", "a" * 256, "a/" * 200 + "b", "~/../../evil", "a/./../../evil", "\u202eevil",
)  # fmt: skip
TYPES = {
    "symlink": tarfile.SYMTYPE,
    "hardlink": tarfile.LNKTYPE,
    "character": tarfile.CHRTYPE,
    "block": tarfile.BLKTYPE,
    "fifo": tarfile.FIFOTYPE,
    "sparse": tarfile.GNUTYPE_SPARSE,
    "contiguous": tarfile.CONTTYPE,
}


def tar(*entries: tuple[str, bytes, bytes], packed: bool, **more: str) -> bytes:
    """Entries are (name, tar type, content)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz" if packed else "w", format=tarfile.PAX_FORMAT) as archive:
        for name, kind, content in entries:
            info = tarfile.TarInfo(name)
            info.type, info.size, info.linkname = kind, len(content), "../../../etc/passwd" if kind in b"12" else ""
            info.pax_headers = more
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def zipped(*entries: tuple[str, int, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Entries are (name, mode, content)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, mode, content in entries:
            info = zipfile.ZipInfo("x")
            info.filename, info.external_attr, info.compress_type = name, mode << 16, method
            archive.writestr(info, content)
    return buffer.getvalue()


def good(form: str) -> bytes:
    if form == "zip":
        return zipped(*((name, 0o100644, content) for name, content in FILES.items()))
    return tar(*((name, tarfile.REGTYPE, content) for name, content in FILES.items()), packed=form == "tar.gz")


def hostile() -> list[tuple[str, bytes, str]]:
    """(file name, bytes, the word it is refused with)."""
    plain = ("fine.txt", tarfile.REGTYPE, b"fine")
    found: list[tuple[str, bytes, str]] = []
    for packed in (False, True):
        form = "tar.gz" if packed else "tar"
        found += [(f"name.{form}", tar(plain, (name, tarfile.REGTYPE, b"x"), packed=packed), "name") for name in NAMES if name]
        found += [
            (f"folder.{form}", tar(plain, (name, tarfile.DIRTYPE, b""), packed=packed), "name") for name in NAMES[:10] if name
        ]
        found += [(f"{kind}.{form}", tar(plain, ("evil", code, b""), packed=packed), "kind") for kind, code in TYPES.items()]
        found += [
            (f"link-then-file.{form}", tar(("d", tarfile.SYMTYPE, b""), ("d/evil", tarfile.REGTYPE, b"x"), packed=packed), "kind"),
            (f"twice.{form}", tar(plain, plain, packed=packed), "name-twice"),
            (f"file-and-folder.{form}", tar(plain, ("fine.txt/b", tarfile.REGTYPE, b"x"), packed=packed), "name-twice"),
            (f"big.{form}", tar(plain, ("big", tarfile.REGTYPE, bytes(200 << 10)), packed=packed), "too-large"),
            (f"many-small.{form}", tar(*((f"b{n}", tarfile.REGTYPE, bytes(9 << 10)) for n in range(15)), packed=packed), "too-large"),
            (f"many.{form}", tar(*((f"n{n}", tarfile.REGTYPE, b"") for n in range(30)), packed=packed), "too-many"),
            (f"folders.{form}", tar(*((f"n{n}", tarfile.DIRTYPE, b"") for n in range(30)), packed=packed), "too-many"),
            (f"pax-path.{form}", tar(plain, ("ok", tarfile.REGTYPE, b"x"), packed=packed, path="../evil"), "name"),
            (f"pax-size.{form}", tar(plain, ("ok", tarfile.REGTYPE, b"x"), packed=packed, size="-1"), ""),
            (f"pax-sparse.{form}", tar(("ok", tarfile.REGTYPE, b"x"), packed=packed, **{"GNU.sparse.map": "0,1", "GNU.sparse.size": "99999999999"}), ""),
            (f"pax-huge.{form}", tar(("ok", tarfile.REGTYPE, b"x"), packed=packed, comment="c" * (100 << 10)), "damaged"),
        ]  # fmt: skip
    found += [("name.zip", zipped(("fine", 0o100644, b"f"), (name, 0o100644, b"x")), "name") for name in NAMES if name]
    for mode in (0o120777, 0o020666, 0o060666, 0o010666, 0o140666):
        found += [
            (f"kind-{mode:o}.zip", zipped(("fine", 0o100644, b"f"), (f"evil{n}", mode, b"/etc/passwd")), "kind")
            for n in range(4)
        ]
    many = [(f"n{n}", 0o100644, b"") for n in range(30)]
    fine = zipped(("fine", 0o100644, b"f" * 1000))
    found += [
        ("bomb.zip", zipped(("bomb", 0o100644, bytes(8 << 20))), "too-large"),
        ("bombs.zip", zipped(*((f"b{n}", 0o100644, bytes(9 << 10)) for n in range(15))), "too-large"),
        ("many.zip", zipped(*many), "too-many"),
        ("list.zip", zipped(*((f"{n}" + "x" * 300, 0o100644, b"") for n in range(60))), "too-many"),
        ("nul.zip", zipped(("evil.txt\0.png", 0o100644, b"x")), "name"),
        ("twice.zip", zipped(("a", 0o100644, b"x"), ("a", 0o100644, b"y")), "name-twice"),
        ("both.zip", zipped(("a", 0o100644, b"x"), ("a/b", 0o100644, b"y")), "name-twice"),
        ("bzip2.zip", zipped(("a", 0o100644, b"x"), method=zipfile.ZIP_BZIP2), "packing"),
        ("lzma.zip", zipped(("a", 0o100644, b"x"), method=zipfile.ZIP_LZMA), "packing"),
        ("encrypted.zip", fine.replace(b"PK\x01\x02\x14\x03\x14\x00\x00", b"PK\x01\x02\x14\x03\x14\x00\x01"), "kind"),
        ("lying-size.zip", fine.replace(struct.pack("<L", 1000), struct.pack("<L", 5)), "damaged"),
        ("cut.zip", fine[:-10], "damaged"),
        ("zip64.zip", fine[:-22] + b"PK\x06\x07" + bytes(16) + fine[-22:], "packing"),
        ("text.zip", b"no archive at all" * 100, "unknown"),
        ("empty.zip", b"", "unknown"),
        ("cut.tar", good("tar")[:1200], "damaged"),
        ("no-end.tar", good("tar")[:2560], "damaged"),
        ("cut.tar.gz", good("tar.gz")[:-30], "damaged"),
        ("sum.tar.gz", good("tar.gz")[:-8] + bytes(8), "damaged"),
        ("nested.tar", tar(*((f"x{n}", tarfile.XHDTYPE, b"") for n in range(3000)), packed=True), "damaged"),
        ("gzip-of-nothing.tar.gz", gzip.compress(b"x" * 5000), "damaged"),
        ("gzip-bomb.tar.gz", gzip.compress(good("tar") + bytes(8 << 20)), "too-large"),
    ]
    return found


HOSTILE = hostile()


def test_there_are_150_hostile_archives() -> None:
    assert len(HOSTILE) >= 150


@pytest.mark.parametrize(("name", "content", "word"), HOSTILE, ids=lambda value: value if isinstance(value, str) else "")
def test_F08_a_hostile_archive_is_refused_whole(name: str, content: bytes, word: str, tmp_path: Path) -> None:
    inside = tmp_path / "outer" / "inside"
    inside.mkdir(parents=True)
    (inside / name).write_bytes(content)
    before = digest_tree(tmp_path)
    with pytest.raises(Refused) as refused:
        unpack(inside / name, inside / "code", SMALL)
    assert refused.value.reasons[0].startswith(word) and name in str(refused.value)
    assert digest_tree(tmp_path) == before
    assert [path.name for path in inside.iterdir()] == [name]
    assert not Path("/tmp/evil-f08").exists()


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
def test_a_plain_archive_comes_out_as_the_folder_it_was(form: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(good(form))
    target = unpack(tmp_path / "a", tmp_path / "code")
    assert (
        {name: (target / name).read_bytes() for name in FILES}
        == FILES
        == {path.relative_to(target).as_posix(): path.read_bytes() for path in target.rglob("*") if path.is_file()}
    )
    with pytest.raises(UsageError, match="not an empty folder"):
        unpack(tmp_path / "a", target)


def test_what_tar_itself_writes_is_taken(tmp_path: Path) -> None:
    """`tar -C folder -cf x .`, with a folder entry for itself, a long name, a setuid bit and an owner."""
    folder = tmp_path / "folder"
    (folder / ("d" * 120) / "e").mkdir(parents=True)
    (folder / ("d" * 120) / "e" / "f.py").write_text("1")
    (folder / "run").write_text("#!/bin/sh\n")
    (folder / "run").chmod(0o4777)
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        with tarfile.open(tmp_path / "x.tar", "w", format=form) as archive:
            archive.add(folder, arcname=".")
        target = unpack(tmp_path / "x.tar", tmp_path / f"out{form}")
        assert digest_path(target) == digest_path(folder)
        assert (target / "run").stat().st_mode & 0o7111 == 0


def test_an_empty_archive_is_an_empty_folder(tmp_path: Path) -> None:
    (tmp_path / "e.zip").write_bytes(zipped())
    assert list(unpack(tmp_path / "e.zip", tmp_path / "code").iterdir()) == []


def test_a_target_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(good("zip"))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "code").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError):
        unpack(tmp_path / "a.zip", tmp_path / "code")
    assert list((tmp_path / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz"])
@given(data=st.data())
def test_F08_a_damaged_archive_is_refused_or_comes_out_inside(
    form: str, data: st.DataObject, tmp_path_factory: Callable
) -> None:
    """Bytes of a good archive changed or cut at random: no error but ours, nothing outside, and never half a folder."""
    content = bytearray(good(form))
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(len(content) // 2, len(content)))]
    place = tmp_path_factory.mktemp("a")
    (place / "a").write_bytes(content)
    try:
        unpack(place / "a", place / "code", SMALL)
    except Refused:
        assert [path.name for path in place.iterdir()] == ["a"]
    else:
        assert sorted(path.name for path in place.iterdir()) == ["a", "code"]
