"""Embedding shift: how far what a model makes of the texts of a window is from what it made of held-out texts when it was trained.

Two samples of vectors by their maximum mean discrepancy under a Gaussian kernel (Gretton et al. 2012), in bounded form: at most ROWS rows
of DIMS numbers a side. What chance alone exceeds is found by dealing the two samples out anew, which is exact for any distribution and
any sample size: under no shift a false alarm has probability `alpha`, the practical least aside. Pure; numpy alone.

Measured with a classifier of the bundled reviews' days 1 and 2 (books), 256 rows a side: halves of its held-out rows 0.02, day 3 (books)
0.08, day 4 0.20, day 6 (hotels) 0.25; chance alone reaches 0.12 once in a hundred. Rows it learned from are 0.14 from rows it did not, so
the sample must be of held-out ones.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.contracts.feedback import DriftReport

ROWS, DIMS = 256, 64
DEALS = 1999
"""Times the samples are dealt out anew: with 1,999 the threshold for one in a thousand is the second largest."""

Vectors = NDArray[np.float32]


def bounded(vectors: Vectors) -> Vectors:
    """At most ROWS rows [n, d], evenly picked, of at most DIMS numbers: a random projection that d alone decides keeps distances
    within an eighth or so (Johnson & Lindenstrauss 1984). What is no number becomes 0."""
    rows, width = vectors.shape
    picked = np.linspace(0, rows - 1, min(rows, ROWS)).round().astype(np.int64) if rows else np.zeros(0, np.int64)
    found = np.nan_to_num(vectors[picked].astype(np.float32), posinf=0.0, neginf=0.0)
    if width > DIMS:
        found = found @ (np.random.default_rng(width).standard_normal((width, DIMS)) / np.sqrt(DIMS)).astype(np.float32)
    return np.asarray(found, np.float32)


def shift(reference: Vectors, current: Vectors, least: float, alpha: float, asked: int, seed: int = 0) -> DriftReport:
    """MMD of `current` [m, d] against `reference` [n, d], both `bounded` and not empty, against the larger of `least` and what dealing
    them out anew exceeds in a share `alpha` of deals. The value is about 0 for one distribution and below 1.42 for
    two that never meet.

    asked: the rows that `current` was picked from; the report says them.
    """
    kernel = _kernel(np.concatenate([reference, current]).astype(np.float64))
    size = len(reference)
    value = float(_mmd(kernel, size, np.arange(len(kernel))[None])[0])
    deals = np.random.default_rng(seed).permuted(np.tile(np.arange(len(kernel)), (DEALS, 1)), axis=1)
    chance = np.sort(_mmd(kernel, size, deals))
    # With the observed one there are DEALS + 1 equally likely values; to be above the k-th largest deal has probability k / (DEALS + 1).
    place = max(1, int(alpha * (DEALS + 1)))
    threshold = max(least, float(chance[-place]))
    return DriftReport(
        feature="embedding",
        kind="mmd",
        value=round(value, 6),
        threshold=round(threshold, 6),
        rows=asked,
        drifted=value > threshold,
    )


def _kernel(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gaussian kernel [n, n] whose width is the median distance; zeros on its diagonal, so that sums of it are unbiased."""
    squares = (points**2).sum(1)
    gaps = np.maximum(squares[:, None] + squares[None] - 2 * points @ points.T, 0.0)
    middle = float(np.median(gaps[np.triu_indices(len(points), 1)])) if len(points) > 1 else 0.0
    kernel = np.exp(-gaps / middle) if middle > 0 else (gaps <= 0).astype(float)
    np.fill_diagonal(kernel, 0.0)
    return np.asarray(kernel)


def _mmd(kernel: NDArray[np.float64], size: int, orders: NDArray[np.int64]) -> NDArray[np.float64]:
    """The unbiased MMD (signed root of its square) of each deal [deals]: the first `size` of `orders` [deals, n] against the rest."""
    others = orders.shape[1] - size
    signs = np.zeros(orders.shape)
    np.put_along_axis(signs, orders[:, :size], 1.0, axis=1)
    both = signs @ kernel
    within = (both * signs).sum(1)
    across = both.sum(1) - within
    rest = kernel.sum() - within - 2 * across
    square = within / max(1, size * (size - 1)) + rest / max(1, others * (others - 1)) - 2 * across / (size * others)
    return np.asarray(np.sign(square) * np.sqrt(np.abs(square)))
