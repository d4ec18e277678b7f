"""A progress bar in a terminal, a log line per evaluation elsewhere."""

from __future__ import annotations

import logging
import sys
from typing import Any

from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.progress import Progress

log = logging.getLogger(__name__)


class Bar(Callback):
    """Speaks on standard error, and only when `speaks` (rank 0 does)."""

    def __init__(self, speaks: bool = True) -> None:
        self._speaks = speaks
        self._bar: Any = None

    def on_start(self, progress: Progress) -> None:
        if self._speaks and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=progress.steps, initial=progress.step, unit="step", desc="train", file=sys.stderr, leave=False
            )

    def on_step(self, progress: Progress) -> None:
        if self._bar is not None:
            self._bar.update(progress.step - self._bar.n)

    def on_validation(self, progress: Progress) -> None:
        loss, score = progress.losses[-1][1], progress.validation[-1][1]
        if self._bar is not None:
            self._bar.set_postfix({"loss": f"{loss:.3f}", progress.metric: f"{score:.3f}"})
        elif self._speaks:
            log.info(
                "step %d of %d: loss %.4f, validation %s %.4f", progress.step, progress.steps, loss, progress.metric, score
            )

    def on_end(self, progress: Progress) -> None:
        if self._bar is not None:
            self._bar.close()
