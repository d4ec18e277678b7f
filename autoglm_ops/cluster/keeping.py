"""Folders that outlive an attempt: stored as they appear (a checkpoint is renamed in whole), laid down for the next one."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType

from autoglm_ops.cluster import exchange
from autoglm_ops.contracts.cluster import Store
from autoglm_ops.errors import AutoGLMError

log = logging.getLogger(__name__)

POLL_SECONDS = 1.0
_PASSED = "what an earlier attempt kept is not used: %s"
SHARE = 0.05
"""How much of the time keeping may take. Only the newest is ever read, and each stays in the store until `autoglm runs gc`."""
REST_SECONDS = 300.0
"""The longest rest all the same: what a node that dies may cost."""


def restore(store: Store, key: str, root: Path) -> None:
    """Lay down what earlier attempts kept last. What cannot be had is passed over: the work then starts over."""
    kept = last(store, key)
    if kept is not None:
        had(store, kept, root)


def last(store: Store, key: str) -> exchange.Kept | None:
    """What earlier attempts kept last; None too when that cannot be told."""
    try:
        return exchange.last_kept(store, key)
    except AutoGLMError as error:
        log.warning(_PASSED, error)
        return None


def had(store: Store, kept: exchange.Kept, root: Path) -> bool:
    """Lay down what was kept. False when it cannot be had."""
    try:
        lay_down(store, kept, root)
    except AutoGLMError as error:
        log.warning(_PASSED, error)
        return False
    return True


def lay_down(store: Store, kept: exchange.Kept, root: Path) -> None:
    """Put what was kept where it was. Raises Refused for a path outside `root`, Tampered, TryAgain."""
    target = root / exchange.inside(kept.path)
    target.parent.mkdir(parents=True, exist_ok=True)
    store.get(kept.digest, target)
    log.info("%s of an earlier attempt is here again", kept.path)


class Keeper:
    """A context that watches `root` for folders that match `patterns` and keeps the newest of each look, by a thread of its own.

    The last look is taken when the context ends, so that a job that is told to stop loses nothing it had written.
    """

    def __init__(self, store: Store, key: str, root: Path, patterns: Sequence[str]) -> None:
        self._store, self._key, self._root, self._patterns = store, key, root, tuple(patterns)
        self._known: set[tuple[Path, int]] = set()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="keeper", daemon=True)

    def __enter__(self) -> Keeper:
        self._known = set(self._found())  # by inode, too: recovery sets a folder aside, and another takes its name
        if self._patterns:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop.set()
        if self._patterns:
            self._thread.join()
            self._look()

    def _watch(self) -> None:
        rest = POLL_SECONDS
        while not self._stop.wait(rest):
            began = time.monotonic()
            kept = self._look()
            rest = rest_after(time.monotonic() - began) if kept else POLL_SECONDS

    def _look(self) -> bool:
        """Whether something was kept."""
        found = set(self._found())
        self._known &= found  # the inode of one that is gone may be another's next
        new = found - self._known
        if not new:
            return False
        newest = max((path for path, _ in new), key=lambda path: path.name)
        try:
            with held(newest, self._root.parent) as folder:
                exchange.keep(self._store, self._key, newest.relative_to(self._root).as_posix(), folder)
        except (AutoGLMError, OSError) as error:  # the work goes on, and the next look tries again (threats F15)
            if newest.is_dir():  # else it made room for a newer one before it was held
                log.warning("%s could not be kept for another attempt: %s", newest.name, error)
            return False
        self._known.update(new)
        log.info("%s is kept for another attempt", newest.name)
        return True

    def _found(self) -> Iterator[tuple[Path, int]]:
        """Each folder and its inode; not its time, which changes while it is removed."""
        for path in (path for pattern in self._patterns for path in self._root.glob(pattern)):
            with suppress(FileNotFoundError):  # it made room between the two looks
                if path.is_dir():
                    yield path, path.stat().st_ino


def rest_after(seconds: float) -> float:
    """How long to look away after a keep that took `seconds`. The look at the context's end keeps what came meanwhile."""
    return max(POLL_SECONDS, min(seconds / SHARE, REST_SECONDS))


@contextmanager
def held(folder: Path, beside: Path) -> Iterator[Path]:
    """The folder under another name, of the same bytes, until the block ends: whoever wrote it may remove it while it is sent."""
    with tempfile.TemporaryDirectory(prefix=".kept-", dir=beside) as place:
        yield shutil.copytree(folder, Path(place) / folder.name, copy_function=_linked)


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # no links on this disk
        shutil.copy2(source, target)
