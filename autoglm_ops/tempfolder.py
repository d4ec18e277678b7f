"""A temporary folder that goes with its owner: at the end of a block, or, where the owner was killed, when the next of its kind is made."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

OWNER = ".owner"
"""A file that the owner holds locked; the kernel lets go of it for whoever dies. A folder without one is nobody's business here."""


@contextmanager
def owned(prefix: str, place: str | None = None) -> Iterator[Path]:
    """A new folder below `place` (the system's temporary one when None) for the block; those of `prefix` without a living owner go first."""
    root = Path(place or tempfile.gettempdir())
    _sweep(root, prefix)
    folder, held = _made(root, prefix)
    with held:
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _made(root: Path, prefix: str) -> tuple[Path, IO[str]]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=root))
        held = (folder / OWNER).open("w")
        with suppress(OSError):  # a disk without locks: then nobody sweeps there either
            fcntl.flock(held, fcntl.LOCK_EX)
        if (folder / OWNER).exists():  # else somebody swept it between the two
            return folder, held
        held.close()


def _sweep(root: Path, prefix: str) -> None:
    for folder in root.glob(f"{prefix}*"):
        with suppress(OSError):  # in use, another's, or gone meanwhile
            if folder.is_symlink() or folder.stat().st_uid != os.geteuid():
                continue
            with (folder / OWNER).open("r+") as held:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
