"""Every step's metrics into the local spool, and the newest into a Prometheus text file (spec T8, threats F23)."""

from __future__ import annotations

import resource
import time
from pathlib import Path

import torch

from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.tracking.points import PointSpool, now
from autoglm_ops.tracking.textfile import write_textfile
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.progress import Progress

TEXT_EVERY = 5.0
"""Seconds between two versions of the text file: it is fsynced, and scraped every 15 s by habit."""
PEAK_CORE = 25e9
"""FLOPs a second of a CPU core in fp32, as the planner has it; MFU on CPUs is of this."""


class Spooled(Callback):
    """Rank 0 has one. `parameters`: what a token passes, for the FLOPs (6 a weight and token, Kaplan et al. 2020, section 2.1)."""

    def __init__(self, spool: Path, parameters: int, plan: ParallelPlan, run: str = "", peak: float = 0.0) -> None:
        self._path, self._parameters, self._plan = spool, parameters, plan
        self._run = run or spool.parent.name
        self._peak = peak or PEAK_CORE * plan.threads_per_rank * plan.ranks
        self._spool: PointSpool | None = None
        self._began = self._last_text = 0.0
        self._start = (0, 0)
        self._restarts = 0.0

    def on_start(self, progress: Progress) -> None:
        self._restarts = float(_count(self._path.with_suffix(".starts")) - 1)
        self._spool = PointSpool(self._path)
        self._began, self._start = time.monotonic(), (progress.step, progress.tokens)

    def on_step(self, progress: Progress) -> None:
        self._write(progress, self._values(progress))

    def on_validation(self, progress: Progress) -> None:
        self._write(progress, {"validation_loss": progress.validation[-1][1]})

    def on_end(self, progress: Progress) -> None:
        if self._spool is not None:
            self._write(progress, {}, last=True)
            self._spool.close()
            self._spool = None

    def _values(self, progress: Progress) -> dict[str, float]:
        rate = (progress.tokens - self._start[1]) / max(time.monotonic() - self._began, 1e-9)
        return {
            "loss": progress.loss,
            "gradient_norm": progress.norm,
            "learning_rate": progress.rate,
            "tokens_per_second": rate,
            "mfu": 6 * self._parameters * rate / self._peak,
            "memory_bytes": float(memory()),
            "checkpoint_age_seconds": self._age(),
            "restarts": self._restarts,
        }

    def _age(self) -> float:
        folder = self._path.parent / "checkpoints"
        times = [path.stat().st_mtime for path in folder.glob("step-*")] if folder.is_dir() else []
        return max(0.0, now() - max(times)) if times else time.monotonic() - self._began

    def _write(self, progress: Progress, values: dict[str, float], last: bool = False) -> None:
        if self._spool is None:
            return
        self._spool.append(progress.step, values, now())
        if last or time.monotonic() - self._last_text > TEXT_EVERY:
            self._last_text = time.monotonic()
            newest = {**self._values(progress), "step": float(progress.step)}
            if progress.validation:
                newest["validation_loss"] = progress.validation[-1][1]
            write_textfile(self._path.with_suffix(".prom"), self._run, newest)


def memory() -> int:
    """Peak bytes of this rank: a GPU's allocator, else resident memory."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


def _count(path: Path) -> int:
    """How often this was called for `path`, this time included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        file.write(b".")
    return path.stat().st_size
