"""The last step of a run that publishes int8: the trained model is made smaller, scored before and after on the same rows, and written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.contracts.training import Quantised
from autoglm_ops.training import int8
from autoglm_ops.training.batch import Fed
from autoglm_ops.training.pooled import of_some
from autoglm_ops.training.rows import MacroF1, Rows


def publish_int8(folder: Path, module: Any, rows: Rows, beat: Callable[[], None] = lambda: None) -> Quantised:
    """Make `module`, float32 on CPU, int8 in place, and `folder`, where it was saved, its folder. `beat` is called as work goes on.

    Ranges are those of training rows, scores of validation rows. Raises UsageError as `int8.quantise`.
    """
    alone, judge = _Alone(module, beat), MacroF1(rows)
    bytes_before, before = (folder / int8.WHOLE).stat().st_size, judge.score(alone, 0)
    layers, kept = int8.rewrite(folder, module, lambda asked: of_some(asked, rows.train, rows.pad_id))
    return Quantised(
        scheme=f"{int8.METHOD} {int8.VERSION}",
        layers=layers,
        kept=kept,
        rows=len(rows.validation),
        before=before,
        after=judge.score(alone, 0),
        bytes_before=bytes_before,
        bytes_after=(folder / int8.FILE).stat().st_size,
    )


class _Alone:
    """What a judge asks, of one module in one process."""

    rank = 0
    ranks = 1

    def __init__(self, module: Any, beat: Callable[[], None]) -> None:
        self._module, self._beat = module, beat

    def logits(self, batch: Fed) -> torch.Tensor:
        self._beat()
        with torch.inference_mode():
            answer: torch.Tensor = self._module(**batch.inputs(torch.device("cpu"))).logits
        return answer.float()

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values
