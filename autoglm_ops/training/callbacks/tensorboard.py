"""TensorBoard event files, through torch's own writer."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autoglm_ops.errors import UsageError
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.loop import Engine
from autoglm_ops.training.progress import Progress


class TensorBoard(Callback):
    """Scalars below `folder` (the run's folder otherwise), by rank 0. Raises UsageError where the package `tensorboard` is not installed."""

    def __init__(self, engine: Engine, out: Path, folder: str | None = None) -> None:
        if find_spec("tensorboard") is None:
            raise UsageError("the callback tensorboard needs the package tensorboard; pip install tensorboard, or leave it out")
        self._folder = Path(folder) if folder else out / "tensorboard"
        self._speaks = engine.rank == 0
        self._writer: Any = None

    def on_start(self, progress: Progress) -> None:
        if self._speaks:
            from torch.utils.tensorboard import SummaryWriter

            # What a killed process wrote beyond the checkpoint is written again: readers drop it from this step on.
            again = progress.step + 1 if progress.step else None
            self._writer = SummaryWriter(str(self._folder), purge_step=again)

    def on_step(self, progress: Progress) -> None:
        if self._writer is not None:
            for name, value in (("loss", progress.loss), ("learning_rate", progress.rate), ("gradient_norm", progress.norm)):
                self._writer.add_scalar(f"train/{name}", value, progress.step)

    def on_validation(self, progress: Progress) -> None:
        if self._writer is not None:
            self._writer.add_scalar(f"validation/{progress.metric}", progress.validation[-1][1], progress.step)

    def on_end(self, progress: Progress) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
