"""What a step minimises. A mean over what is labelled, in the whole global batch, however that is cut into micro-batches and ranks.

An engine averages over its micro-batches and DeepSpeed over ranks, so a micro-batch's loss is its sum divided by the mean number of
labelled items per micro-batch. With padding and masked turns the micro-batches hold different numbers of labelled tokens, and a mean
of their means would weigh tokens by the company they keep.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from autoglm_ops.errors import BadData
from autoglm_ops.training.batch import Fed

IGNORED = -100
"""The label of what is not to be learned: padding, and every word that is not the assistant's."""


class Objective(Protocol):
    """A loss over labelled items."""

    def items(self, batch: Fed) -> int:
        """How many items of `batch` are labelled."""
        ...

    def loss(self, logits: torch.Tensor, batch: Fed, items: float) -> torch.Tensor:
        """The sum over `batch`'s labelled items, divided by `items`; a scalar."""
        ...


class Classification:
    """Cross-entropy of one label per row, or of its target's probabilities, times the row's weight where rows have one. logits [rows,
    classes], labels int64 [rows]."""

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self._smoothing = label_smoothing

    def items(self, batch: Fed) -> int:
        return len(batch.labels)

    def loss(self, logits: torch.Tensor, batch: Fed, items: float) -> torch.Tensor:
        weights = getattr(batch, "weights", None)
        targets = getattr(batch, "targets", None)
        learned = (batch.labels if targets is None else targets).to(logits.device)
        if weights is None:
            mean = cross_entropy(logits.float(), learned, label_smoothing=self._smoothing)
        else:
            each = cross_entropy(logits.float(), learned, label_smoothing=self._smoothing, reduction="none")
            mean = (each * weights.to(logits.device)).mean()
        return mean * (len(batch.labels) / items)  # equal micro-batches: times one, which changes no bit


class CausalLM:
    """Cross-entropy of the next token. logits [rows, width, vocabulary], labels int64 [rows, width], IGNORED where nothing is asked.

    The label at a position is the token at that position; the shift is done here. The first position is never predicted.
    """

    def __init__(self, label_smoothing: float = 0.0) -> None:
        self._smoothing = label_smoothing

    def items(self, batch: Fed) -> int:
        return int((batch.labels[:, 1:] != IGNORED).sum())

    def loss(self, logits: torch.Tensor, batch: Fed, items: float) -> torch.Tensor:
        labels = batch.labels[:, 1:].to(logits.device)
        asked = labels != IGNORED
        picked = logits[:, :-1][asked].float()  # only what is asked is copied to fp32: with a masked prompt that is little
        return cross_entropy(picked, labels[asked], label_smoothing=self._smoothing, reduction="sum") / items


def mean_items(
    objective: Objective, batches: Sequence[Fed], ranks: int, add: Callable[[NDArray[np.float64]], NDArray[np.float64]]
) -> float:
    """Labelled items per micro-batch, on average over all ranks' `batches` of one step. Raises BadData when there is none."""
    total = float(add(np.array([float(sum(objective.items(batch) for batch in batches))]))[0])
    if total == 0:
        raise BadData(
            "a whole batch without one labelled item: nothing can be learned from it; look at its labels", ("unlabelled",)
        )
    return total / (ranks * len(batches))
