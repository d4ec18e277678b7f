"""End a run whose validation no longer gets better."""

from __future__ import annotations

from autoglm_ops.errors import UsageError
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.progress import Progress


class EarlyStop(Callback):
    """Stops after `patience` evaluations in a row without a new best. The best weights are kept in any case."""

    def __init__(self, patience: int = 3) -> None:
        if patience < 1:
            raise UsageError(f"patience must be at least 1, but got {patience}")
        self._patience = patience

    def on_validation(self, progress: Progress) -> None:
        since = sum(step > progress.best_step for step, _ in progress.validation)
        if since >= self._patience:
            best = f"{progress.metric} {progress.best_score} at step {progress.best_step}"
            progress.stop = f"early-stop: no better in {since} evaluations than {best}"
