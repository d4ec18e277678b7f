"""A learning rate that follows the variance of the gradient: noisy steps are made smaller, steps that no longer differ larger.

The preset halves above 1e-4 and doubles below 1e-6 over the last 100 steps (spec T5). What is measured is the gradient's norm before
clipping; a model whose norm is not near 1 wants thresholds of its own.
"""

from __future__ import annotations

import logging
import statistics

from autoglm_ops.errors import UsageError
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.progress import Progress

log = logging.getLogger(__name__)

NOTE = "adaptive-rate"


class AdaptiveRate(Callback):
    """Multiplies the schedule's rate, after each `window` steps, by 1/2, 1 or 2, and stays within 1/`most` and `most` times it.

    A change empties the window. The norms are part of a checkpoint, so a continued run changes where the unbroken one did. Steps whose
    engine states no norm (0) are not counted.
    """

    def __init__(self, window: int = 100, high: float = 1e-4, low: float = 1e-6, most: float = 64.0) -> None:
        if window < 2 or not 0 <= low < high or most < 1:
            raise UsageError(
                f"window must be at least 2, 0 <= low < high and most >= 1, but got {window}, {low}, {high}, {most}"
            )
        self._window, self._high, self._low, self._most = window, high, low, most

    def on_step(self, progress: Progress) -> None:
        norms = progress.notes.setdefault(NOTE, [])
        if progress.norm > 0:
            norms.append(progress.norm)
        del norms[: -self._window]
        factor = self.factor(norms)
        scale = min(self._most, max(1 / self._most, progress.scale * factor))
        if scale != progress.scale:
            log.info("step %d: learning rate times %g (it was times %g)", progress.step, scale, progress.scale)
            progress.scale = scale
            norms.clear()

    def factor(self, norms: list[float]) -> float:
        """What a window of norms asks for: 0.5, 1 or 2; 1 while it is not full."""
        if len(norms) < self._window:
            return 1.0
        variance = statistics.pvariance(norms)
        return 0.5 if variance > self._high else 2.0 if variance < self._low else 1.0
