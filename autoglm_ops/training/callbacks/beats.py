"""A rank's heartbeat follows the loop."""

from __future__ import annotations

from autoglm_ops.training.beat import Heart
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.progress import Progress


class Beats(Callback):
    """Says the step after each one. The engine beats inside a step and an evaluation (`DeepSpeedEngine`, `pulse`)."""

    def __init__(self, heart: Heart) -> None:
        self._heart = heart

    def on_start(self, progress: Progress) -> None:
        self._heart.enter("training", progress.step)

    def on_step(self, progress: Progress) -> None:
        self._heart.at(progress.step)
