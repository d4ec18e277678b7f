"""A hard stop in seconds (spec P9): the run ends in order, with what it has."""

from __future__ import annotations

import numpy as np

from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.loop import Engine
from autoglm_ops.training.progress import Progress


class Deadline(Callback):
    """Stops after `seconds` of steps and evaluations, those before a resume too. All ranks agree on the step, by the slowest clock."""

    def __init__(self, seconds: float, engine: Engine) -> None:
        self._seconds, self._engine = seconds, engine

    def on_step(self, progress: Progress) -> None:
        spent = sum(progress.seconds.values())
        if self._engine.add(np.array([float(spent > self._seconds)]))[0] > 0:
            progress.stop = (
                f"budget-spent: {self._seconds:g} s were given, and step {progress.step} of {progress.steps} was reached"
            )
