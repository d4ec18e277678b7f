"""Every step and evaluation as a line of JSON."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, TextIO

from autoglm_ops.training.callbacks.base import AfterValidation, Callback
from autoglm_ops.training.loop import Engine
from autoglm_ops.training.progress import Progress


class JsonLines(Callback):
    """Appends to `path`, flushed line by line, so that it can be followed and survives a kill; rank 0 should have one.

    A step is `{step, loss, learning_rate, gradient_norm, tokens, seconds}`; an evaluation `{step, metric, value}`. `seconds` are since
    the start of this process's run.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: TextIO | None = None
        self._began = 0.0

    def on_start(self, progress: Progress) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self._path.open("a", encoding="utf-8")
        self._began = time.monotonic()

    def on_step(self, progress: Progress) -> None:
        self._write(
            step=progress.step,
            loss=progress.loss,
            learning_rate=progress.rate,
            gradient_norm=progress.norm,
            tokens=progress.tokens,
            seconds=round(time.monotonic() - self._began, 3),
        )

    def on_validation(self, progress: Progress) -> None:
        self._write(step=progress.step, metric=progress.metric, value=progress.validation[-1][1])

    def on_end(self, progress: Progress) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _write(self, **line: Any) -> None:
        if self._file is not None:
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def json_lines(engine: Engine, out: Path, name: str = "metrics.jsonl") -> Callback:
    """JsonLines into the run's folder on rank 0, nothing elsewhere."""
    return JsonLines(out / name) if engine.rank == 0 else AfterValidation(lambda _: None)
