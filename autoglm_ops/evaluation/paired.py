"""How sure we are: bootstrap intervals, and the paired test of two models on the same rows.

Rows that agree in (truth, A's answer, B's answer) are interchangeable, so both resamplings draw how often each such cell
occurs, never rows: 2,000 resamples of 800 rows take milliseconds.

- The interval is the 95 % percentile bootstrap over rows (Efron & Tibshirani 1993, ch. 13).
- The p-value is approximate randomisation: under "no difference" a row's two answers may be swapped (Noreen 1989; Yeh 2000,
  COLING, shows it suits F1 where the t-test does not). It is exact for any number of rows, which a bootstrap p-value is not.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from autoglm_ops.contracts.release import Interval
from autoglm_ops.errors import UsageError
from autoglm_ops.evaluation.metrics import Codes, Floats, Metric, Tally, metric

COVERAGE = 0.95
_CHUNK = 4_000_000  # numbers drawn at once: 32 MB


@dataclass(frozen=True)
class Comparison:
    """A's metric minus B's: the estimate, its 95 % interval, and the two-sided p-value of "no difference"."""

    difference: Interval
    p_value: float


@dataclass(frozen=True)
class _Cells:
    """The distinct (truth, answer…) rows [c, 1 + models] and how often each occurs [c]."""

    codes: Codes
    counts: Codes
    labels: int

    def tally(self, model: int, counts: Floats) -> Tally:
        """Counts of model 1…m when cell i occurs counts[..., i] times."""
        truth, answer = np.eye(self.labels)[self.codes[:, 0]], np.eye(self.labels)[self.codes[:, model]]
        return Tally(counts @ (truth * answer), counts @ truth, counts @ answer)


def interval(name: str, truth: Codes, predicted: Codes, *, labels: int, resamples: int, seed: int) -> Interval:
    """One model's metric with its 95 % bootstrap interval. Raises UsageError without rows."""
    cells, measure = _cells(labels, truth, predicted), metric(name)
    estimate = float(measure(cells.tally(1, cells.counts.astype(np.float64))))
    values = np.concatenate([measure(cells.tally(1, drawn)) for drawn in _bootstrap(cells, resamples, seed)])
    return _interval(estimate, values)


def compare(name: str, truth: Codes, first: Codes, second: Codes, *, labels: int, resamples: int, seed: int) -> Comparison:
    """`first` minus `second` on the same rows. Raises UsageError without rows or when the lengths differ."""
    cells, measure = _cells(labels, truth, first, second), metric(name)
    observed = float(_difference(cells, measure, cells.counts.astype(np.float64)))
    values = np.concatenate([_difference(cells, measure, drawn) for drawn in _bootstrap(cells, resamples, seed)])
    return Comparison(_interval(observed, values), _swap_p_value(cells, measure, observed, resamples, seed))


def _cells(labels: int, *columns: Codes) -> _Cells:
    if len({len(column) for column in columns}) != 1:
        raise UsageError(f"truth and answers must have one length, but have {', '.join(str(len(c)) for c in columns)}")
    if not len(columns[0]):
        raise UsageError("there are no rows to compare on; give at least one")
    codes, counts = np.unique(np.stack(columns, axis=1), axis=0, return_counts=True)
    return _Cells(codes, counts, labels)


def _difference(cells: _Cells, measure: Metric, counts: Floats) -> Floats:
    return measure(cells.tally(1, counts)) - measure(cells.tally(2, counts))


def _interval(estimate: float, values: Floats) -> Interval:
    tail = (1 - COVERAGE) / 2
    low, high = np.quantile(values, [tail, 1 - tail])
    return Interval(estimate=estimate, low=float(low), high=float(high))


def _batches(resamples: int, width: int) -> list[int]:
    """Sizes that add up to `resamples`, each small enough to hold in memory."""
    size = max(1, _CHUNK // max(width, 1))
    return [min(size, resamples - start) for start in range(0, resamples, size)]


def _bootstrap(cells: _Cells, resamples: int, seed: int) -> Iterator[Floats]:
    """Batches of cell counts [batch, c]: n rows drawn with replacement."""
    rng = np.random.default_rng([seed, 1])
    rows = int(cells.counts.sum())
    for size in _batches(resamples, len(cells.counts)):
        yield rng.multinomial(rows, cells.counts / rows, size=size).astype(np.float64)


def _swap_p_value(cells: _Cells, measure: Metric, observed: float, resamples: int, seed: int) -> float:
    """Share of random swaps with a difference at least as large. Counting the observed one keeps it valid and above 0."""
    rng = np.random.default_rng([seed, 2])
    swapped = _Cells(cells.codes[:, [0, 2, 1]], cells.counts, cells.labels)
    extreme = 0
    for size in _batches(resamples, len(cells.counts)):
        turned = rng.binomial(cells.counts, 0.5, size=(size, len(cells.counts))).astype(np.float64)
        kept = cells.counts - turned
        first, second = _merge(cells, swapped, kept, turned, 1), _merge(cells, swapped, kept, turned, 2)
        extreme += int((np.abs(measure(first) - measure(second)) >= abs(observed) - 1e-12).sum())
    return (1 + extreme) / (1 + resamples)


def _merge(cells: _Cells, swapped: _Cells, kept: Floats, turned: Floats, model: int) -> Tally:
    one, other = cells.tally(model, kept), swapped.tally(model, turned)
    return Tally(one.right + other.right, one.actual + other.actual, one.predicted + other.predicted)
