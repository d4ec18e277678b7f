"""What an engine is fed: token rows as a padded torch batch, or any loader's dict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

MULTIPLE = 8
"""Widths are rounded up to this: few shapes, and vector loads that end on a border."""


class Fed(Protocol):
    """A micro-batch: what the module's forward takes, and the labels it is measured by."""

    @property
    def labels(self) -> torch.Tensor: ...

    def inputs(self, device: torch.device) -> dict[str, Any]:
        """Keyword arguments of the module's forward, tensors on `device`."""
        ...


class Batch(NamedTuple):
    """ids and mask int64 [rows, width], padded on the right to the longest row; labels int64 [rows]; weights float32 [rows], None
    where all weigh 1; targets float32 [rows, labels], probabilities, None where the labels are all that is learned."""

    ids: torch.Tensor
    mask: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor | None = None
    targets: torch.Tensor | None = None

    def inputs(self, device: torch.device) -> dict[str, Any]:
        return {"input_ids": self.ids.to(device), "attention_mask": self.mask.to(device)}


class DictBatch(NamedTuple):
    """A loader's batch: `given` goes to the module's forward as it is, by name."""

    given: Mapping[str, Any]
    labels: torch.Tensor

    def inputs(self, device: torch.device) -> dict[str, Any]:
        return {name: value.to(device) if isinstance(value, torch.Tensor) else value for name, value in self.given.items()}


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
