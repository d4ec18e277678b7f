"""Macro-F1 and accuracy in numpy, over any number of resamples at once.

Both are functions of three counts per label, so a bootstrap resamples counts and never rows (see paired.py).
Labels are codes 0…k-1 of one list of names that covers the truth and every model compared.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.errors import UsageError

Codes = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Tally:
    """Counts per label, each shaped [..., k]: rows predicted right, rows that bear the label, rows predicted to bear it."""

    right: Floats
    actual: Floats
    predicted: Floats


Metric = Callable[[Tally], Floats]


def macro_f1(tally: Tally) -> Floats:
    """Mean F1 over the labels that occur in the truth, shaped [...]; 0 without rows.

    A label that only a model knows is no class of its own here: its rows count as misses of their true label. So two models
    with different label sets are averaged over the same classes. Equal to sklearn's `f1_score(labels=those in the truth)`.
    """
    total = tally.actual + tally.predicted
    f1 = 2 * tally.right / np.where(total > 0, total, 1)
    seen = tally.actual > 0
    return np.asarray((f1 * seen).sum(-1) / np.maximum(seen.sum(-1), 1))


def accuracy(tally: Tally) -> Floats:
    """Share of rows predicted right, shaped [...]; 0 without rows."""
    return np.asarray(tally.right.sum(-1) / np.maximum(tally.actual.sum(-1), 1))


METRICS: dict[str, Metric] = {"macro_f1": macro_f1, "accuracy": accuracy}


def metric(name: str) -> Metric:
    """The metric called `name`. Raises UsageError listing the known ones."""
    if name not in METRICS:
        raise UsageError(f"unknown metric {name!r}; known: {', '.join(METRICS)}")
    return METRICS[name]


def label_names(*lists: Sequence[str]) -> tuple[str, ...]:
    """Every label of the given lists, once, sorted."""
    return tuple(sorted(set().union(*lists)))


def encode(labels: Sequence[str], names: Sequence[str]) -> Codes:
    """Codes [n] of `labels` in `names`. Raises UsageError for a label that `names` does not hold."""
    index = {name: code for code, name in enumerate(names)}
    unknown = set(labels) - index.keys()
    if unknown:
        raise UsageError(f"label {min(unknown)!r} is not among {', '.join(names)}")
    return np.fromiter((index[label] for label in labels), np.int64, len(labels))


def tally(truth: Codes, predicted: Codes, labels: int) -> Tally:
    """Counts of one set of rows; `truth` and `predicted` are [n]."""

    def count(codes: Codes) -> Floats:
        return np.bincount(codes, minlength=labels).astype(np.float64)

    return Tally(count(truth[truth == predicted]), count(truth), count(predicted))


def score(name: str, truth: Codes, predicted: Codes, labels: int) -> float:
    """The metric `name` of one model on one set of rows."""
    return float(metric(name)(tally(truth, predicted, labels)))


def confusion(truth: Codes, predicted: Codes, names: Sequence[str]) -> dict[str, dict[str, int]]:
    """Truth name -> predicted name -> rows, every pair of names present."""
    size = len(names)
    counts = np.bincount(truth * size + predicted, minlength=size * size).reshape(size, size)
    return {name: dict(zip(names, map(int, row), strict=True)) for name, row in zip(names, counts, strict=True)}
