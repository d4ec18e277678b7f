"""A log of JSON Lines files, read in the order of their names: a folder here, or a prefix of an S3 bucket.

Files are only added and only grow, and a new one's name sorts behind those that are there; what breaks that is refused, not skipped.
A file is left for the next once a look that came after the next one's appearance finds nothing new in it. Only whole lines are taken;
a last line that never got its end is taken, torn as it is, when its file is left.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from autoglm_ops.data.follow.events import MAX_EVENT, Entry
from autoglm_ops.data.readers.blocks import Stream
from autoglm_ops.data.readers.bucket import Bucket
from autoglm_ops.data.readers.folder import Folder
from autoglm_ops.data.readers.limits import Limits
from autoglm_ops.data.readers.names import PACKINGS, is_hidden
from autoglm_ops.data.readers.places import Location
from autoglm_ops.data.readers.shards import Blob, Part
from autoglm_ops.errors import BadData, Tampered, TryAgain

log = logging.getLogger(__name__)
_BUFFER = 1 << 20  # bytes of one request to a bucket
_TAIL = 4096  # bytes of the last line that must be as they were
_LINES = (".jsonl", ".ndjson")
_PACKED = tuple(f"{kind}{packing}" for kind in _LINES for packing in PACKINGS)
RESTORE = "a log is append-only: restore the file, or begin anew with another output folder"


class Growing(Folder):
    """A folder whose files may have grown since they were listed, and all of them: a README beside data/ hides nothing of a log."""

    def blobs(self) -> Iterator[Blob]:
        try:
            yield from super().blobs()
        except OSError as error:  # one was removed meanwhile, or may not be looked at
            raise _unread(error) from error

    def _within(self) -> Path:
        return self._root

    @contextmanager
    def opened(self, part: Part) -> Iterator[Stream]:
        try:
            file = self._path(part.blob).open("rb")
        except OSError as error:
            raise _unread(error) from error
        with file:
            file.seek(max(part.start - 1, 0))
            yield file


class Objects(Bucket):
    """Everything below a prefix."""

    def blobs(self) -> Iterator[Blob]:
        start = f"{self._prefix}/" if self._prefix else ""
        for item in self._reader.listing(start):
            if not item.key.endswith("/"):
                yield Blob(item.key.removeprefix(start), item.size, item.tag)


def folder_log(location: str) -> FileLog:
    """The log in a folder. Raises BadData when there is none."""
    path = Path(location.removeprefix("file://"))
    if not path.is_dir():
        raise BadData(f"{location!r} is no folder; name the folder that the log's files are written to", ("no-such-folder",))
    return FileLog(path.resolve().name, Growing(location, Limits()), pause=0.5)


def bucket_log(location: str) -> FileLog:
    """The log below `s3://bucket/prefix`. The endpoint and the keys come from the environment, as for any AWS client."""
    return FileLog(location.rstrip("/"), Objects(location, Limits(requests=sys.maxsize)), pause=5.0)


class At(NamedTuple):
    """An offset: behind byte `at` of `file`, whose last `length` bytes had the digest `tail`.

    `passed` files were left behind, and `mark` is the sum of their digests by name and size. With them a file that came to lie behind
    us, or grew there, is noticed; old files may be removed, and while there are fewer than were passed the sum says nothing.
    """

    file: str = ""
    at: int = 0
    length: int = 0
    tail: str = ""
    passed: int = 0
    mark: int = 0

    @property
    def text(self) -> str:
        return json.dumps(self, ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> At:
        """Raises Tampered for what is no offset of such a log."""
        if not text:
            return cls()
        try:
            file, at, length, tail, passed, mark = json.loads(text)
            return cls(str(file), int(at), int(length), str(tail), int(passed), int(mark))
        except (ValueError, TypeError) as error:
            raise Tampered(f"{text[:80]!r} is no place in a log of files; give this log an output folder of its own") from error


class FileLog:
    """Entries of every line."""

    def __init__(self, name: str, place: Location, pause: float) -> None:
        self.name, self.pause, self.place = name, pause, place
        self._ignored: set[str] = set()

    def read(self, after: str, most: int) -> Iterator[Entry]:
        return _Walk(self, At.of(after), most).run()

    def listed(self) -> list[Blob]:
        """The log's files by name. Raises BadData for one that is packed: it would have to be skipped."""
        return [blob for blob in sorted(self.place.blobs()) if not is_hidden(blob.name) and self._is_log(blob.name)]

    def _is_log(self, name: str) -> bool:
        known = name if name.isprintable() else ""
        if known.endswith(_PACKED):
            raise BadData(f"{self.name}: {name} is packed; a log's files are plain JSON Lines: unpack it", ("packed",))
        if not known.endswith(_LINES) and name not in self._ignored:
            self._ignored.add(name)
            log.warning("%s: %r is no .jsonl or .ndjson file and is left alone", self.name, name)
        return known.endswith(_LINES)


class _Walk:
    """One `read`: where it stands and how many entries it may still give."""

    def __init__(self, source: FileLog, here: At, most: int) -> None:
        self._log, self._here, self._left = source, here, most

    def run(self) -> Iterator[Entry]:
        blobs = self._log.listed()
        self._check(blobs)
        while blob := next((blob for blob in blobs if blob.name >= self._here.file), None):
            if blob.name != self._here.file:  # only at the very beginning: `_check` has seen that a begun file is still there
                self._here = self._here._replace(file=blob.name)
            yield from self._lines(blob, torn=False)
            if self._left <= 0 or blob.name == blobs[-1].name:
                return
            older, blobs = blobs, self._log.listed()
            now = next((item for item in blobs if item.name == blob.name), blob)
            if now.size > blob.size:
                continue
            yield from self._lines(blob, torn=True)
            self._here = At(self._following(older, blobs), passed=self._here.passed + 1, mark=_plus(self._here.mark, now))

    def _following(self, older: list[Blob], newer: list[Blob]) -> str:
        """The next file's name. Raises Tampered when one that was to be read is gone."""
        there = {blob.name for blob in newer}
        if gone := [blob.name for blob in older if blob.name > self._here.file and blob.name not in there]:
            raise self._changed(f"{gone[0]} was removed before it was read")
        return next(blob.name for blob in newer if blob.name > self._here.file)

    def _check(self, blobs: list[Blob]) -> None:
        """Raises Tampered when the files up to here are not those that were read."""
        here, behind = self._here, [blob for blob in blobs if blob.name < self._here.file]
        total = 0
        for blob in behind:
            total = _plus(total, blob)
        if here.file and (len(behind) > here.passed or (len(behind) == here.passed and total != here.mark)):
            raise self._changed(f"of the files before {here.file} one is new, or is not as it was when it was read")
        size = next((blob.size for blob in blobs if blob.name == here.file), None)
        if here.file and (size is None or size < here.at):
            raise self._changed(f"{here.file} has {size or 0} bytes, but {here.at} of it were read")

    def _lines(self, blob: Blob, torn: bool) -> Iterator[Entry]:
        """What lies in `blob` behind here; a line without its end only when `torn`."""
        here = self._here
        if here.at >= blob.size:
            return
        with self._log.place.opened(Part(blob, here.at - here.length + 1, blob.size)) as stream:
            file = _buffered(stream)
            if here.length and _digest(file.read(here.length)) != here.tail:
                raise self._changed(f"the bytes before byte {here.at} of {blob.name} are not those that were read")
            while self._left > 0 and (found := _line(file, torn)):
                self._left -= 1
                yield self._entry(*found)

    def _entry(self, raw: bytes, size: int, fits: bool) -> Entry:
        here, end = self._here, b"\n" if size > len(raw) else b""
        tail = raw[-_TAIL:] + end if fits else b""
        self._here = here._replace(at=here.at + size, length=len(tail), tail=_digest(tail))
        return Entry(f"{here.file}:{here.at}", self._here.text, raw, fits)

    def _changed(self, what: str) -> Tampered:
        return Tampered(f"{self._log.name}: {what}; {RESTORE}")


def _line(file: BinaryIO, torn: bool) -> tuple[bytes, int, bool] | None:
    """The next line without its LF, its size with it, and whether it is at most MAX_EVENT bytes; None when there is none yet."""
    raw = file.readline(MAX_EVENT + 1)
    if raw.endswith(b"\n"):
        return raw[:-1], len(raw), True
    size, ended = len(raw), False
    while len(raw) > MAX_EVENT and not ended and (chunk := file.readline(_BUFFER)):
        size, ended = size + len(chunk), chunk.endswith(b"\n")
    return (raw, size, len(raw) <= MAX_EVENT) if raw and (ended or torn) else None


def _buffered(stream: Stream) -> BinaryIO:
    """An object of a bucket in requests of `_BUFFER` bytes; a file has its own buffer."""
    raw = isinstance(stream, io.RawIOBase)
    return cast(BinaryIO, io.BufferedReader(cast(io.RawIOBase, stream), _BUFFER) if raw else stream)


def _unread(error: OSError) -> TryAgain:
    return TryAgain(f"{error.filename} cannot be read: {error.strerror}; see to its permissions, then start again")


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:16] if data else ""


def _plus(mark: int, blob: Blob) -> int:
    """A sum that does not ask in which order."""
    return (mark + int(_digest(f"{blob.name}\0{blob.size}".encode()), 16)) % 2**64
