"""A checkpoint after each evaluation but the last, by rank 0, where the engine's state is whole on it.

One that cannot be kept (a full disk, a folder that became read-only) does not end the run: it is said and counted, the one before it is
there still, and the next evaluation tries again (threats F15).
"""

from __future__ import annotations

import logging
from pathlib import Path

from autoglm_ops.training import checkpoint
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.loop import Engine
from autoglm_ops.training.progress import Progress

log = logging.getLogger(__name__)


class Checkpoints(Callback):
    """Keeps the newest in `root`, under the `key` that says which run this is (see `checkpoint.save`)."""

    def __init__(self, root: Path, key: str, engine: Engine) -> None:
        self._root, self._key, self._engine = root, key, engine
        self.failed = 0

    def on_validation(self, progress: Progress) -> None:
        if self._engine.resumable and self._engine.rank == 0 and progress.step < progress.steps:
            try:
                checkpoint.save(self._root, self._key, self._engine, progress)
            except OSError as error:
                self.failed += 1
                log.error(
                    "the checkpoint at step %d could not be kept (%s); the run goes on, and would continue from an older one: %d lost so far",
                    progress.step,
                    error,
                    self.failed,
                )
