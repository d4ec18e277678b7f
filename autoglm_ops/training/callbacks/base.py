"""What a callback may hear. The loop emits these and knows nothing of what listens."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from autoglm_ops.training.progress import Progress


class Callback(Protocol):
    """A behaviour beside the loop, one file each. Subclass it and write the hooks you need; every rank calls every hook.

    What a hook raises ends the run (a pruner does that); `on_end` is heard then too.
    """

    def on_start(self, progress: Progress) -> None:
        """Before the first step of this process; `progress.step` is above 0 when the run is continued."""
        return

    def on_step(self, progress: Progress) -> None:
        """After each optimizer step: `loss`, `rate` and `norm` (the gradient's, before clipping) are this step's, on this rank."""
        return

    def on_validation(self, progress: Progress) -> None:
        """After each evaluation: the last entries of `losses` and `validation` are new."""
        return

    def on_end(self, progress: Progress) -> None:
        """After the last step, or after an error."""
        return


class AfterValidation(Callback):
    """A plain function as a callback, called after each evaluation."""

    def __init__(self, told: Callable[[Progress], None]) -> None:
        self._told = told

    def on_validation(self, progress: Progress) -> None:
        self._told(progress)
