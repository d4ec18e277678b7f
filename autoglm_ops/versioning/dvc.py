"""The one owner of dvc: restore a stage's output from the cache, commit what a stage made, push a version.

A stage is never run by DVC here: `dvc repro` would turn its exit code into 255 and keep signals from it (design §4).
"""

from __future__ import annotations

import logging
import os
from contextlib import chdir
from pathlib import Path
from typing import Any

os.environ.setdefault("DVC_NO_ANALYTICS", "1")  # read by dvc while it is imported: nothing may phone home

from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.stage.cache import RunCacheNotFoundError

from autoglm_ops.contracts.record import write_text
from autoglm_ops.errors import AutoGLMError, UsageError


def configure(root: Path, home: Path) -> None:
    """Point a workspace at the shared cache and remote under `home`, by absolute paths."""
    lines = [
        "[cache]",
        f"    dir = {home / 'dvc' / 'cache'}",
        "[core]",
        "    remote = local",
        "['remote \"local\"']",
        f"    url = {home / 'dvc' / 'remote'}",
    ]
    write_text(root / ".dvc" / "config.local", "\n".join(lines) + "\n")


class Pipeline:
    """The dvc.yaml of one workspace, as a context. It has one committer, so its locks are never contended.

    DVC resolves stage names and outputs against the process's working directory, so the context moves there.
    """

    def __init__(self, root: Path) -> None:
        self._there = chdir(root)
        _hush()
        try:
            self._repo: Any = Repo(str(root))
        except DvcException as error:
            raise UsageError(f"{root} is not a DVC workspace: {error}; run this at the top of a checkout") from error

    def restore(self, name: str) -> bool:
        """Lay down the stage's output if it is unchanged or in the run-cache. False when it has to be computed."""
        with self._repo.lock:
            stage = self._stage(name)
            if not stage.changed():
                return True
            stage.remove_outs(ignore_remove=False, force=True)
            try:
                self._repo.stage_cache.restore(stage)
            except RunCacheNotFoundError:
                return False
            _save(stage)
            return True

    def commit(self, name: str) -> None:
        """Put the stage's output into the cache and its digests into dvc.lock."""
        with self._repo.lock:
            try:
                _save(self._stage(name))
            except DvcException as error:
                raise AutoGLMError(f"dvc could not commit stage {name}: {error}") from error

    def add(self, folder: Path) -> Path:
        """`dvc add`."""
        try:
            [stage] = self._repo.add([str(folder)])
        except DvcException as error:
            raise AutoGLMError(f"dvc could not add {folder}: {error}") from error
        return Path(stage.path)

    def push(self) -> int:
        """Copy this workspace's version to the remote. Returns how many objects went."""
        pushed: int = self._repo.push()
        return pushed

    def _stage(self, name: str) -> Any:
        return self._repo.stage.load_one(name=name)

    def __enter__(self) -> Pipeline:
        self._there.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._repo.close()
        self._there.__exit__(None, None, None)


def add(root: Path, folder: Path) -> Path:
    """Put `folder` under DVC as it is: its bytes into the cache, its digests into `<folder>.dvc` beside it, which is returned.

    Raises UsageError when `root` is no DVC workspace, AutoGLMError with DVC's reason when it refuses.
    """
    with Pipeline(root) as pipeline:
        return pipeline.add(folder)


def _hush() -> None:
    """dvc prints its progress through handlers of its own, set while it is imported; ours show its warnings."""
    logger = logging.getLogger("dvc")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.WARNING)


def _save(stage: Any) -> None:
    """What `dvc repro` does after a stage: hash, cache (run-cache included), write dvc.lock."""
    stage.save()
    stage.commit()
    stage.dump(update_pipeline=False)
