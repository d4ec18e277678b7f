"""Weights & Biases, offline: nothing leaves the machine; `wandb sync` sends it when a person wants that."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from autoglm_ops.errors import UsageError
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.loop import Engine
from autoglm_ops.training.progress import Progress

QUIET = {
    "WANDB_ERROR_REPORTING": "false",  # its service reports on itself, offline too, unless this is said before it starts
    "WANDB_SILENT": "true",
    "WANDB_CONSOLE": "off",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_X_DISABLE_META": "true",
    "WANDB_X_DISABLE_STATS": "true",
}
"""Metrics are kept; nothing is sent or printed, and neither the machine nor the checkout is looked at. What the environment says goes before."""


class WandB(Callback):
    """One offline run below the run's folder, by rank 0; one more each time it is continued. Raises UsageError where the package `wandb` is not installed."""

    def __init__(self, engine: Engine, out: Path, project: str = "autoglm") -> None:
        if find_spec("wandb") is None:
            raise UsageError("the callback wandb needs the package wandb; pip install wandb, or leave it out")
        self._out, self._project, self._speaks = out, project, engine.rank == 0
        self._run: Any = None

    def on_start(self, progress: Progress) -> None:
        if self._speaks:
            self._out.mkdir(parents=True, exist_ok=True)
            for name, value in QUIET.items():
                os.environ.setdefault(name, value)
            self._run = import_module("wandb").init(mode="offline", project=self._project, dir=str(self._out))

    def on_step(self, progress: Progress) -> None:
        if self._run is not None:
            values = {"loss": progress.loss, "learning_rate": progress.rate, "gradient_norm": progress.norm}
            self._run.log(values, step=progress.step)

    def on_validation(self, progress: Progress) -> None:
        if self._run is not None:
            self._run.log({f"validation/{progress.metric}": progress.validation[-1][1]}, step=progress.step)

    def on_end(self, progress: Progress) -> None:
        if self._run is not None:
            self._run.finish()
            self._run = None
