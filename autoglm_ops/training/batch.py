"""Token rows to a padded torch batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

MULTIPLE = 8
"""Widths are rounded up to this: few shapes, and vector loads that end on a border."""


class Batch(NamedTuple):
    """ids and mask int64 [rows, width], padded on the right to the longest row; labels int64 [rows]."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor


def collate(rows: Sequence[NDArray[np.int32]], labels: NDArray[np.int64], pad_id: int) -> Batch:
    """Pad `rows` to their longest. An empty row keeps one visible pad, since attention over nothing is NaN."""
    width = max(1, *(len(row) for row in rows))
    width = -(-width // MULTIPLE) * MULTIPLE
    ids = np.full((len(rows), width), pad_id, np.int64)
    mask = np.zeros((len(rows), width), np.int64)
    for place, row in enumerate(rows):
        ids[place, : len(row)] = row
        mask[place, : max(1, len(row))] = 1
    return Batch(torch.from_numpy(ids), torch.from_numpy(mask), torch.from_numpy(np.ascontiguousarray(labels)))
