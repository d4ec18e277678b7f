"""A packed folder that somebody sent, laid down: zip, tar or tar.gz, into a folder of its own and nowhere else (threat F08).

Only regular files and folders with relative names come out. A link, a device, a sparse file, a name that leaves the folder, a name
twice, more files or bytes than are allowed, or an early end refuses the whole archive, and nothing of it stays. What the headers say
of sizes is not believed: bytes are counted as they come. Modes, owners and times are not taken over.
"""

from __future__ import annotations

import gzip
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple, Protocol, cast

from autoglm_ops.errors import Refused, TryAgain, UsageError
from autoglm_ops.store.listing import check_name

_CHUNK = 1 << 20
_HEADER = 64 << 10  # bytes of one extended tar header, which tarfile reads whole
_ROOM = 4 << 10  # bytes an entry's own header and padding may take
_FILES = (tarfile.REGTYPE, tarfile.AREGTYPE)
_EXTENDED = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_ENCRYPTED = 1  # flag bit 0 of a zip entry (APPNOTE 4.4.4)
_DAMAGE = (
    zipfile.BadZipFile, tarfile.TarError, zlib.error, struct.error, EOFError, OSError, ValueError, IndexError, KeyError,
    NotImplementedError, RecursionError, OverflowError,
)  # fmt: skip


@dataclass(frozen=True)
class Limits:
    """What an archive may cost."""

    entries: int = 10_000
    unpacked: int = 1 << 30
    """Bytes of all files together; the archive itself may not be larger either."""
    name: int = 1024
    """Bytes of a path; a part has at most 255, as on every file system."""


def unpack(archive: Path, target: Path, limits: Limits | None = None) -> Path:
    """Lay the archive's files down in `target`, which must be missing or empty; it is filled whole or not at all.

    Raises UsageError when there is no such archive or `target` holds something, Refused with a word for the rule that was broken,
    TryAgain when the disk is full.
    """
    if target.is_symlink() or (target.exists() and not (target.is_dir() and not any(target.iterdir()))):
        raise UsageError(f"{target} is there and not an empty folder; choose another one for {archive.name}")
    if not archive.is_file():
        raise UsageError(f"{archive} is not a file; give a .zip, .tar or .tar.gz")
    staged = target.with_name(f".{target.name}.{os.getpid()}.unpack")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        filler = _Filler(archive.name, staged, limits or Limits())
        with _opened(archive, filler) as entries:
            for entry in entries:
                filler.add(entry)
        with filler.disk():
            staged.mkdir(parents=True, exist_ok=True)
            os.replace(staged, target)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return target


class _Reads(Protocol):
    def read(self, size: int, /) -> bytes: ...


class _Entry(NamedTuple):
    """`content` is None for a folder."""

    name: str
    content: _Reads | None


class _Filler:
    """Writes entries below `folder` and keeps the counts."""

    def __init__(self, archive: str, folder: Path, limits: Limits) -> None:
        self._archive, self._folder, self.limits = archive, folder, limits
        self._entries = self._bytes = 0

    def refuse(self, word: str, what: str) -> Refused:
        return Refused(f"{self._archive} is not unpacked: {word}: {what}", (f"{word}: {what}",))

    @contextmanager
    def disk(self) -> Iterator[None]:
        try:
            yield
        except (FileExistsError, NotADirectoryError):
            raise
        except OSError as error:
            raise TryAgain(
                f"{self._archive} could not be unpacked: {error.strerror or error}; free space, try again"
            ) from error

    def add(self, entry: _Entry) -> None:
        self._entries += 1
        if self._entries > self.limits.entries:
            raise self.refuse("too-many", f"it holds more than {self.limits.entries} entries; send less")
        if entry.content is None and entry.name in (".", "./"):  # what tar writes for the folder itself
            return
        path = self._folder.joinpath(*self._parts(entry.name))
        try:
            with self.disk():
                (path if entry.content is None else path.parent).mkdir(parents=True, exist_ok=True)
            if entry.content is not None:
                self._write(path, entry.content)
        except (FileExistsError, NotADirectoryError) as error:
            raise self.refuse("name-twice", f"{entry.name!r} is in it twice, or once as a file and once as a folder") from error

    def _parts(self, name: str) -> tuple[str, ...]:
        parts = PurePosixPath(name).parts
        try:
            check_name("/".join(parts), self._archive)
            sizes = [len(part.encode()) for part in parts]
        except (Refused, UnicodeEncodeError) as error:
            raise self.refuse("name", f"{name!r}: names are relative and printable, with no '..' and no backslash") from error
        if max(sizes) > 255 or sum(sizes) + len(sizes) > self.limits.name or ":" in parts[0]:
            raise self.refuse("name", f"{name[:80]!r} is too long, or begins with a drive")
        return parts

    def _write(self, path: Path, content: _Reads) -> None:
        with self.disk():
            file = path.open("xb")
        with file:
            while chunk := content.read(_CHUNK):
                self._bytes += len(chunk)
                self.check(self._bytes)
                with self.disk():
                    file.write(chunk)

    def check(self, size: int, room: int = 0) -> None:
        if size > self.limits.unpacked + room:
            raise self.refuse("too-large", f"it is more than {self.limits.unpacked} bytes; send less")


@contextmanager
def _opened(archive: Path, filler: _Filler) -> Iterator[Iterator[_Entry]]:
    """The archive's entries by what its first bytes say it is. Damage is a refusal too."""
    with archive.open("rb") as raw:
        filler.check(os.fstat(raw.fileno()).st_size, filler.limits.entries * _ROOM)
        head = raw.read(512)
        raw.seek(0)
        try:
            if head[:4] in (b"PK\x03\x04", b"PK\x05\x06"):
                _check_directory(raw, filler)
                with zipfile.ZipFile(raw) as packed:
                    yield _zip(packed, filler)
            elif head[:2] == b"\x1f\x8b":
                with gzip.GzipFile(fileobj=raw) as plain:
                    yield _tar(plain, filler)
            elif head[257:262] == b"ustar":
                yield _tar(raw, filler)
            else:
                raise filler.refuse("unknown", "it begins like no zip, tar or tar.gz")
        except _DAMAGE as error:
            raise filler.refuse("damaged", f"{error or type(error).__name__}; pack it again") from error


def _check_directory(raw: IO[bytes], filler: _Filler) -> None:
    """zipfile reads the whole list of entries before it shows one, so its size is bounded first (APPNOTE 4.3.16)."""
    size = raw.seek(0, os.SEEK_END)
    raw.seek(max(0, size - (22 + 0xFFFF + 20)))
    tail = raw.read()
    raw.seek(0)
    end = tail.rfind(b"PK\x05\x06")
    if end < 0 or len(tail) < end + 22:
        raise zipfile.BadZipFile("it has no end record")
    if tail[max(0, end - 20) : end].startswith(b"PK\x06\x07"):
        raise filler.refuse("packing", "it is a zip64; pack less")
    if int.from_bytes(tail[end + 12 : end + 16], "little") > filler.limits.entries * (46 + filler.limits.name):
        raise filler.refuse("too-many", f"its list is longer than {filler.limits.entries} entries need; send less")


def _zip(packed: zipfile.ZipFile, filler: _Filler) -> Iterator[_Entry]:
    for info in packed.infolist():
        kind = stat.S_IFMT(info.external_attr >> 16)  # 0 where it was packed on Windows
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR) or info.flag_bits & _ENCRYPTED:
            raise filler.refuse("kind", f"{info.filename!r} is encrypted, a link or a device; only plain files are taken")
        if info.orig_filename != info.filename:  # zipfile cuts at a NUL
            raise filler.refuse("name", f"{info.orig_filename!r} holds a NUL")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise filler.refuse("packing", f"{info.filename!r} is packed by method {info.compress_type}; only deflate is read")
        if info.is_dir():
            yield _Entry(info.filename, None)
        else:
            with packed.open(info) as content:
                yield _Entry(info.filename, content)


def _tar(stream: _Reads, filler: _Filler) -> Iterator[_Entry]:
    """As a stream, so that every byte passes the count, headers and padding too; to its end, so that gzip's checksum is looked at."""
    counted = _Counted(stream, filler)
    with tarfile.open(fileobj=cast("IO[bytes]", counted), mode="r|", tarinfo=_Header) as packed:
        for info in packed:
            if info.isdir():
                yield _Entry(info.name, None)
                continue
            if info.type not in _FILES or info.issparse() or info.size < 0:
                raise filler.refuse("kind", f"{info.name!r} is a link, a device or sparse; only plain files are taken")
            content = packed.extractfile(info)
            assert content is not None  # a regular file
            yield _Entry(info.name, content)
    while counted.read(_CHUNK):
        pass


class _Header(tarfile.TarInfo):
    """A header whose extensions are bounded, and whose damage is an error: tarfile itself takes it for the archive's end."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> _Header:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            if type(error).__name__ == "EOFHeaderError":  # the two empty blocks of a whole archive
                raise
            raise tarfile.ReadError(str(error)) from error

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.size < 0 or (self.type in _EXTENDED and self.size > _HEADER):
            raise tarfile.ReadError(f"a header speaks of {self.size} bytes")
        return super()._proc_member(archive)  # type: ignore[misc,no-any-return]


class _Counted:
    """A stream that is cut off once more came out of it than all files and their headers can take."""

    def __init__(self, stream: _Reads, filler: _Filler) -> None:
        self._stream, self._filler = stream, filler
        self._out = 0

    def read(self, size: int) -> bytes:
        piece = self._stream.read(size)
        self._out += len(piece)
        self._filler.check(self._out, self._filler.limits.entries * _ROOM)
        return piece
