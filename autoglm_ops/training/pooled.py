"""What a model makes of texts: the mean of its last hidden states over the tokens of each row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.training.batch import collate

ROWS = 512
"""Rows of a sample at most."""
BATCH = 64


def pooled(module: Any, rows: Sequence[NDArray[np.int32]], pad_id: int) -> NDArray[np.float32]:
    """float32 [rows, hidden size], in the order given. Rows of like length share a batch."""
    order = np.argsort([len(row) for row in rows], kind="stable")
    device = next(module.parameters()).device
    parts: dict[int, NDArray[np.float32]] = {}
    for start in range(0, len(rows), BATCH):
        part = order[start : start + BATCH]
        given = collate([rows[place] for place in part], np.zeros(len(part), np.int64), pad_id).inputs(device)
        with torch.inference_mode():
            means = _mean(module(**given, output_hidden_states=True), given["attention_mask"]).cpu().numpy()
        parts |= dict(zip(map(int, part), means, strict=True))
    return np.stack([parts[place] for place in range(len(rows))]) if rows else np.zeros((0, 0), np.float32)


def _mean(out: Any, mask: torch.Tensor) -> torch.Tensor:
    """[rows, hidden size]; the logits of a model that shows no states, the plain mean where it shortens its rows."""
    states = getattr(out, "hidden_states", None) or getattr(out, "encoder_hidden_states", None)
    if not states:
        return torch.as_tensor(out.logits).float()
    last: torch.Tensor = states[-1].float()
    if last.shape[1] != mask.shape[1]:
        return last.mean(1)
    seen = mask[:, :, None].to(last.dtype)
    return (last * seen).sum(1) / seen.sum(1)


def of_some(module: Any, arrays: TokenArrays, pad_id: int) -> NDArray[np.float32]:
    """`pooled` of at most ROWS of `arrays`, evenly picked."""
    picked = np.linspace(0, len(arrays) - 1, min(len(arrays), ROWS)).round().astype(np.int64)
    return pooled(module, [arrays[int(row)] for row in picked], pad_id)
