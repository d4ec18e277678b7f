"""A checkpoint after each evaluation but the last, by rank 0, where the engine's state is whole on it."""

from __future__ import annotations

from pathlib import Path

from autoglm_ops.training import checkpoint
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.loop import Engine
from autoglm_ops.training.progress import Progress


class Checkpoints(Callback):
    """Keeps the newest in `root`, under the `key` that says which run this is (see `checkpoint.save`)."""

    def __init__(self, root: Path, key: str, engine: Engine) -> None:
        self._root, self._key, self._engine = root, key, engine

    def on_validation(self, progress: Progress) -> None:
        if self._engine.resumable and self._engine.rank == 0 and progress.step < progress.steps:
            checkpoint.save(self._root, self._key, self._engine, progress)
