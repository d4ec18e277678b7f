"""The artefact store in a folder: `<root>/<digest>/…` beside `<root>/<digest>.files`, its listing; `<root>/notes/<name>`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import BinaryIO

from autoglm_ops.contracts.cluster import FRESH_SECONDS, Entry
from autoglm_ops.contracts.record import locked, sync, tree_text, write_text
from autoglm_ops.errors import Refused, Tampered, TryAgain
from autoglm_ops.store.listing import (
    Listing,
    check_digest,
    check_note,
    copy_checked,
    digest_of_listing,
    lay_down,
    parse,
    parse_note,
    survey,
)


def open_folder(where: str) -> LocalStore:
    return LocalStore(Path(where))


class LocalStore:
    """A folder that is there is whole: it was staged, fsynced and renamed in, once."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, folder: Path) -> str:
        """Store `folder` once; putting the same again changes nothing. Returns its digest.

        Raises UsageError or Refused (see `survey`), Tampered when it changes while it is read, TryAgain when the disk is full.
        """
        listing = survey(folder)
        digest = digest_of_listing(listing)
        if self.has(digest) and time.time() - self._at(digest) < FRESH_SECONDS:
            return digest
        try:
            with locked(self.root / ".lock"):
                self._sweep()
                if not self.has(digest):
                    self._add(folder, digest, listing)
                elif self._at(digest):
                    os.utime(self.root / f"{digest}.files")
        except OSError as error:
            raise TryAgain(
                f"{self.root} could not take artefact {digest}: {error.strerror or error}; free space, try again"
            ) from error
        return digest

    def get(self, digest: str, target: Path) -> Path:
        """Lay the folder down at `target`, each file checked as it is copied. Raises Refused when it was never put, Tampered."""
        if not self.has(digest):
            raise Refused(
                f"no artefact {digest} in {self.root}; register the model again, or name the store it is in (store.uri)"
            )
        stored = self.root / digest
        index = stored.with_suffix(".files")
        if not index.exists():
            raise Tampered(f"{index} is missing: the listing of artefact {digest} was removed; store the folder again")
        listing = parse(index.read_bytes(), digest, str(index))

        def opened(name: str, _: str) -> BinaryIO:
            path = stored / name
            if path.is_symlink() or not path.is_file():
                raise Tampered(f"{path} is missing or is no regular file: the store was changed; store the folder again")
            return path.open("rb")

        return lay_down(digest, listing, target, opened)

    def has(self, digest: str) -> bool:
        return (self.root / check_digest(digest)).is_dir()

    def note(self, name: str, digest: str) -> str:
        """Keep `digest` under `name` unless something is there; returns what is. Raises TryAgain when the disk is full."""
        path = self.root / "notes" / check_note(name)
        try:
            with locked(self.root / ".lock"):
                if not path.exists():
                    write_text(path, check_digest(digest) + "\n")
        except OSError as error:
            raise TryAgain(f"{path} could not be written: {error.strerror or error}; free space, try again") from error
        return parse_note(path.read_bytes(), str(path))

    def noted(self, name: str) -> str | None:
        """What `note` kept under `name`. Raises Tampered."""
        path = self.root / "notes" / check_note(name)
        return parse_note(path.read_bytes(), str(path)) if path.exists() else None

    def entries(self) -> Iterator[Entry]:
        """Every whole artefact. Raises Tampered."""
        for index in sorted(self.root.glob("*.files")):
            if (self.root / index.stem).is_dir():
                yield Entry(index.stem, index.stat().st_mtime, parse(index.read_bytes(), index.stem, str(index)))

    def notes(self) -> Iterator[tuple[str, str]]:
        """Every note. Raises Tampered."""
        for path in sorted((self.root / "notes").glob("*/*")):
            yield path.relative_to(self.root / "notes").as_posix(), parse_note(path.read_bytes(), str(path))

    def forget(self, name: str) -> None:
        with locked(self.root / ".lock"):
            (self.root / "notes" / check_note(name)).unlink(missing_ok=True)

    def drop(self, digests: Collection[str], before: float) -> int:
        """Under the lock, so that no `put` finds an artefact that is about to go. A kill leaves what the next `put` sweeps."""
        freed = 0
        with locked(self.root / ".lock"):
            for digest in digests:
                if not self.has(digest) or self._at(digest) >= before:
                    continue
                gone = self.root / f".{digest}.staged"
                os.replace(self.root / digest, gone)
                (self.root / f"{digest}.files").unlink(missing_ok=True)
                freed += sum(path.stat().st_size for path in gone.rglob("*") if path.is_file())
                shutil.rmtree(gone)
        return freed

    def _at(self, digest: str) -> float:
        """When it was put last; 0 when its listing is gone."""
        path = self.root / f"{digest}.files"
        return path.stat().st_mtime if path.exists() else 0.0

    def _add(self, folder: Path, digest: str, listing: Listing) -> None:
        staged = self.root / f".{digest}.staged"
        try:
            for name, expected in listing.items():
                with (folder / name).open("rb") as source:
                    found = copy_checked(source, staged / name)
                if found != expected:
                    raise Tampered(f"{folder / name} changed while it was stored; finish writing it, then store it again")
                (staged / name).chmod(0o444)
            for path in (staged, *(path for path in staged.rglob("*") if path.is_dir())):
                sync(path)
            write_text(self.root / f"{digest}.files", tree_text(listing))
            os.replace(staged, self.root / digest)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
        sync(self.root)

    def _sweep(self) -> None:
        """Remove what a killed `put` left: under the lock nobody else is staging."""
        for path in self.root.glob(".*.staged"):
            shutil.rmtree(path)
