"""A folder as a listing of its files by sha256, checked when it is read, and laid down file by file under that check."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from autoglm_ops.contracts.record import digest_path, digest_tree, sync, tree_text
from autoglm_ops.errors import Refused, Tampered, TryAgain, UsageError

Listing = dict[str, str]
_DIGEST = re.compile(r"[0-9a-f]{64}")
_CHUNK = 1 << 20


def survey(folder: Path) -> Listing:
    """Relative name -> sha256 for every file of `folder`.

    Raises UsageError when it is no folder or holds no file, Refused for anything that is neither a folder nor a regular file:
    a symbolic link would smuggle in what the digest does not cover.
    """
    if not folder.is_dir() or folder.is_symlink():
        raise UsageError(f"{folder} is not a folder; an artefact is a folder of regular files")
    for path in folder.rglob("*"):
        mode = path.lstat().st_mode
        name = path.relative_to(folder).as_posix()
        if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
            raise Refused(
                f"{folder}: {name} is a link or a device; an artefact holds regular files only: copy the file in its place"
            )
        check_name(name, str(folder))
    listing = digest_tree(folder)
    if not listing:
        raise UsageError(f"{folder} holds no file; there is nothing to store")
    return listing


def digest_of_listing(listing: Listing) -> str:
    """The folder's digest, equal to `digest_path` of it."""
    return hashlib.sha256(tree_text(listing).encode()).hexdigest()


def parse(text: bytes, digest: str, where: str) -> Listing:
    """The listing whose sha256 is `digest`. Raises Tampered for other bytes and for a name that leaves the folder."""
    found = hashlib.sha256(text).hexdigest()
    if found != digest:
        raise Tampered(f"{where} has sha256 {found}, not {digest}: the store's listing was changed; store the folder again")
    pairs = (line.partition("\t") for line in text.decode("utf-8").split("\n")[:-1])
    listing = {name: value for name, _, value in pairs}
    for name in listing:
        check_name(name, where)
    return listing


def check_digest(digest: str) -> str:
    """`digest` itself. Raises UsageError unless it is 64 hexadecimal digits, so that it can be part of a path."""
    if not _DIGEST.fullmatch(digest):
        raise UsageError(f"{digest[:80]!r} is not a digest: 64 hexadecimal digits (sha256)")
    return digest


def check_note(name: str) -> str:
    """`name` itself. Raises UsageError unless it is a word, a slash and a digest."""
    word, _, digest = name.partition("/")
    if not (word.isascii() and word.isalpha() and word.islower()):
        raise UsageError(f"{name[:80]!r} names no note: a lower-case word, a slash and a digest")
    return f"{word}/{check_digest(digest)}"


def parse_note(text: bytes, where: str) -> str:
    """The digest in a note. Raises Tampered for anything else."""
    found = text.decode("ascii", "replace").removesuffix("\n")
    if not _DIGEST.fullmatch(found):
        raise Tampered(f"{where} holds no digest: the store was changed; remove it and store the version again")
    return found


def lay_down(digest: str, listing: Listing, target: Path, opened: Callable[[str, str], BinaryIO]) -> Path:
    """Copy every file to a folder beside `target`, checking each as it is read, and move the folder in whole.

    opened(name, sha256) gives the stored bytes. A `target` that already holds exactly this is left alone; one that holds
    anything else is never overwritten (UsageError).
    """
    if target.is_dir() and any(target.iterdir()):
        if digest_path(target) == digest:
            return target
        raise UsageError(f"{target} exists and holds something else; remove it or choose another folder")
    staged = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    shutil.rmtree(staged, ignore_errors=True)
    try:
        for name, expected in listing.items():
            with opened(name, expected) as source:
                found = copy_checked(source, staged / name)
            if found != expected:
                raise Tampered(
                    f"{name} of artefact {digest} has sha256 {found}, not {expected}: refused; store the folder again"
                )
        os.replace(staged, target)
    except OSError as error:
        raise TryAgain(
            f"{target} could not be written: {error.strerror or error}; free space or fix permissions, try again"
        ) from error
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    sync(target.parent)
    return target


def copy_checked(source: BinaryIO, target: Path) -> str:
    """Copy to `target` (its folder is made), fsync, and return the sha256 of what was written."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("wb") as file:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    return digest.hexdigest()


def check_name(name: str, where: str) -> None:
    """Raises Refused unless `name` is a relative path of printable parts that stays where it is put."""
    parts = PurePosixPath(name).parts
    if (
        not parts
        or name.startswith("/")
        or ".." in parts
        or any(mark in name for mark in "\t\n\r\\\0")
        or not name.isprintable()
    ):
        raise Refused(f"{where}: the file name {name!r} is not allowed in an artefact: relative, printable, no '..' and no tab")
