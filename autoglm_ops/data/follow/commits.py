"""The follower's output: a folder of commits, each of which appears with its documents, its quarantine and its offset in one rename.

    000000000007/documents.jsonl     what the batch's events became; not there when it is nothing
                 _quarantine.jsonl   events that became nothing, with the reason
                 _commit.json        LogCommit: how many, and where to go on
    .000000000008.<process>.part     a batch that is being written; readers of documents see neither this nor what begins with _
    _lock                            held by the one follower

The newest commit is the position: there is no other file that could disagree. Old commits may be removed from the front.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from autoglm_ops.contracts.follow import LogCommit
from autoglm_ops.contracts.record import digest_path, sync
from autoglm_ops.errors import Refused, Tampered, TryAgain, UsageError

DOCUMENTS, QUARANTINE, RECORD = "documents.jsonl", "_quarantine.jsonl", "_commit.json"
_NAME, _PART = re.compile(r"\d{12}"), re.compile(r"\.\d{12}\.\d+\.part")


class Commits:
    """The commits of one log in `folder`, for one follower at a time. Used as a context; see `__enter__` for what it refuses."""

    def __init__(self, folder: Path, log: str) -> None:
        self._folder, self._log = folder, log
        self._lock: IO[str] | None = None
        self.last: LogCommit | None = None

    def __enter__(self) -> Commits:
        """Take the folder. Raises TryAgain when another follower has it, Tampered when its newest commit is not whole, UsageError when
        it is another log's or somebody else's."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = (self._folder / "_lock").open("a")
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self.__exit__()
            raise TryAgain(
                f"another follower writes to {self._folder.name}; one log has one follower: end that one first"
            ) from error
        except OSError as error:
            raise UsageError(f"{self._folder} cannot be written to: {error.strerror}; choose another output folder") from error
        try:
            self._sweep()
            self.last = newest(self._folder, self._log)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if self._lock:
            self._lock.close()
            self._lock = None

    @property
    def after(self) -> str:
        """The offset to go on behind."""
        return self.last.after if self.last else ""

    def publish(self, record: LogCommit, contents: Mapping[str, bytes]) -> LogCommit:
        """The next commit: `record` with its number, its files and its predecessor. When this returns it is on disk; when it raises
        TryAgain (a full disk) nothing of it is there."""
        files = {name: hashlib.sha256(data).hexdigest() for name, data in contents.items() if data}
        number, before = (self.last.number + 1, self.last.fingerprint()) if self.last else (1, None)
        made = record.model_copy(update={"number": number, "files": files, "previous": before})
        target = self._folder / f"{number:012d}"
        try:
            with _appearing(target) as part:
                for name in files:
                    (part / name).write_bytes(contents[name])
                (part / RECORD).write_text(made.to_json(), encoding="utf-8")
        except OSError as error:
            if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
                raise Refused(
                    f"commit {number} is there already: another follower writes to {self._folder.name}; end it"
                ) from error
            raise TryAgain(
                f"{target} could not be written: {error.strerror}; free space, and start again: it goes on where it was"
            ) from error
        self.last = made
        return made

    def _sweep(self) -> None:
        """What those that were killed left; their lock is ours now."""
        for path in self._folder.iterdir():
            if _PART.fullmatch(path.name):
                shutil.rmtree(path, ignore_errors=True)


def newest(folder: Path, log: str) -> LogCommit | None:
    """The newest commit in `folder`, checked against its files; None when there is none. Raises Tampered, UsageError."""
    numbers = []
    for path in folder.iterdir():
        if _NAME.fullmatch(path.name):
            numbers.append(int(path.name))
        elif not path.name.startswith((".", "_")):
            raise UsageError(f"{folder} holds {path.name!r}, which no follower wrote; give the documents a folder of their own")
    if not numbers:
        return None
    if missing := sorted({*range(min(numbers), max(numbers))} - {*numbers}):
        raise Tampered(f"{folder} lacks commit {missing[0]}, but has later ones; restore it: its documents are gone")
    return _verified(folder / f"{max(numbers):012d}", log)


def _verified(folder: Path, log: str) -> LogCommit:
    if not (folder / RECORD).is_file():
        raise Tampered(f"{folder} has no {RECORD}; restore it, or remove the whole folder: its events are then taken again")
    record = LogCommit.read(folder / RECORD)
    if record.number != int(folder.name):
        raise Tampered(f"{folder} holds commit {record.number}; commits cannot be renamed: put it back where it was")
    if record.source != log:
        raise UsageError(
            f"{folder.parent} holds the commits of {record.source}, not of {log}; each log needs a folder of its own"
        )
    for name, digest in record.files.items():
        if not (folder / name).is_file() or digest_path(folder / name) != digest:
            raise Tampered(
                f"{folder / name} is not what commit {record.number} wrote; restore it, or remove the whole folder: "
                "its events are then taken again"
            )
    before = folder.with_name(f"{record.number - 1:012d}") / RECORD
    if before.parent.exists() and LogCommit.read(before).fingerprint() != record.previous:
        raise Tampered(
            f"{before.parent} is not the commit that {folder.name} was made behind; restore it, or both from one copy"
        )
    return record


@contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """A hidden folder that becomes `target` at the end, on disk; nothing is left of it when the block fails."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    try:
        part.mkdir()
        yield part
        for path in (*part.iterdir(), part):
            sync(path)
        part.rename(target)
        sync(target.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)
