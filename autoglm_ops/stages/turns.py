"""Who works alone: one opener of runs, and one stage at a time in a run's workspace.

Two DAG runs of the same work share a workspace (the daily run and a second trigger), and with it the folders of its stages and DVC's
locks. Who comes second waits, and then finds the work done. The kernel lets go for whoever is killed.
"""

from __future__ import annotations

import fcntl
import logging
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

log = logging.getLogger(__name__)


def alone(root: Path) -> AbstractContextManager[None]:
    """In the workspace `root`. Not to be nested."""
    return taken(root / ".dvc" / "tmp" / "autoglm.lock", f"run {root.name}: another attempt works in it; waiting for its end")


@contextmanager
def taken(path: Path, busy: str) -> Iterator[None]:
    """Hold the lock of the file `path`, which is made; `busy` is said when it has to be waited for."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log.info("%s", busy)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield
