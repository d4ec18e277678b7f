"""A model of learning curves: how low will this configuration's loss be at the end, given what all configurations showed so far.

A Gaussian process over (configuration, time) on logarithmic time, the freeze-thaw idea (Swersky, Snoek, Adams 2014) with a kernel that
starts every curve at one point and lets it fan out:

    k = a tt' + m(x, x') (b tt' + c min(t, t')) + [same trial] (d tt' + e min(t, t')) + h p(x, t) p(x', t')

m is Matérn 5/2 with a length scale per feature; tt' is a straight line in log time (a power law of the loss), min(t, t') Brownian motion
around it. p is what earlier studies promise (`transfer`), and the last term lets this study find out how much of that is true.
Nothing here knows what a step, a trial or a setting is.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, solve_triangular
from scipy.optimize import minimize

from autoglm_ops.tuning.worth import Belief

Array = NDArray[np.float64]
Places = NDArray[np.int64]

ROOT5 = np.sqrt(5.0)
JITTER = 1e-6
AMPLITUDES = (0.5, 1.0, 0.3, 0.2, 0.1, 1e-3)
"""Prior of a, b, c, d, e and the noise, for losses of unit scale."""
DOUBT = 0.1
"""Variance added to values that are no better than the reference: a curve that blows up first and learns then must not be written off
after one look. On the three development tasks, twelve seeds, times fewer steps than random: with history 62 against 44 without it, cold
33 against 29, and no cell over 1,000 steps (0.3: 60 and 34)."""
LENGTH = 0.8
ITERATIONS = 12
FITTED = 160
"""Points that hyper-parameters are fitted to at most; all are used for predictions."""


class Points(NamedTuple):
    """Observed or asked places: rows of the feature table, log times in (0, 1], and what history promises there."""

    row: Places
    time: Array
    prior: Array


class Model(NamedTuple):
    """Hyper-parameters as logarithms: a length scale per feature, then a, b, c, d, e and the noise. `trust`: h."""

    values: Array
    trust: float = 0.0

    @property
    def amplitudes(self) -> Array:
        return np.exp(self.values[-6:])


class Posterior(NamedTuple):
    """The model after what was `seen`: root of its kernel, weights [n], and the log likelihood of it all but for a constant."""

    model: Model
    alike: Array
    seen: Points
    root: Array
    weights: Array
    evidence: float


def prior_model(features: int, trust: float = 0.0) -> Model:
    return Model(np.concatenate([np.full(features, np.log(LENGTH)), np.log(AMPLITUDES)]), trust)


def log_time(step: Array | int, steps: int) -> Array:
    """0 at the start, 1 at the end."""
    return np.asarray(np.log1p(np.asarray(step, dtype=float)) / np.log1p(steps))


def likeness(model: Model, left: Array, right: Array) -> Array:
    """m(x, x') of feature rows [n, d] and [m, d]: [n, m]."""
    scale = np.exp(-model.values[: left.shape[1]])
    a, b = left * scale, right * scale
    squares = np.maximum((a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * a @ b.T, 0)
    return _matern(np.sqrt(squares))


def condition(model: Model, alike: Array, seen: Points, values: Array) -> Posterior:
    """`alike`: `likeness` of the whole feature table; `values`: [n], what is promised included."""
    shared = _kernel(model, alike, seen, seen)
    shared.flat[:: len(values) + 1] += model.amplitudes[5] + JITTER + _doubt(values)
    root = np.asarray(np.linalg.cholesky(shared), dtype=np.float64)
    weights = cho_solve((root, True), values - seen.prior, check_finite=False)
    evidence = -0.5 * float((values - seen.prior) @ weights) - float(np.log(np.diag(root)).sum())
    return Posterior(model, alike, seen, root, weights, evidence)


def means(known: Posterior, asked: Points) -> Array:
    return np.asarray(asked.prior + _kernel(known.model, known.alike, asked, known.seen) @ known.weights)


def foresee(known: Posterior, end: Points, after: Points) -> Belief:
    """What is believed of each configuration's `end`, and how much of that a look at the same configuration's `after` would tell."""
    far, near = (
        solve_triangular(known.root, _kernel(known.model, known.alike, known.seen, asked), lower=True, check_finite=False)
        for asked in (end, after)
    )
    spread = np.sqrt(np.maximum(_own(known.model, end, end) - (far * far).sum(0), 1e-9))
    looked = np.maximum(_own(known.model, after, after) - (near * near).sum(0), 1e-9) + known.model.amplitudes[5]
    shared = _own(known.model, end, after) - (far * near).sum(0)
    gain = np.minimum(np.abs(shared) / np.sqrt(looked), 0.9999 * spread)
    return Belief(means(known, end), spread, gain)


def fit(start: Model, around: Model, width: float, features: Array, seen: Points, values: Array) -> Model:
    """Hyper-parameters of most likelihood, held near `around` by a normal prior on their logarithms of `width` times their usual freedom."""
    task = _Likelihood(features[seen.row], seen, values - seen.prior, around.values, width, _doubt(values))
    found = minimize(task, start.values, jac=True, method="L-BFGS-B", options={"maxiter": ITERATIONS})
    return Model(np.asarray(found.x), start.trust)


def _matern(distance: Array) -> Array:
    return np.asarray((1 + ROOT5 * distance + 5 / 3 * distance**2) * np.exp(-ROOT5 * distance))


def _doubt(values: Array) -> Array:
    return np.asarray(np.where(values >= 0, DOUBT, 0.0))


def _own(model: Model, left: Points, right: Points) -> Array:
    """Prior covariance of pairs of places on the same trial: [n]."""
    a, b, c, d, e, _ = model.amplitudes
    line, walk = left.time * right.time, np.minimum(left.time, right.time)
    return np.asarray((a + b + d) * line + (c + e) * walk + model.trust * left.prior * right.prior)


def _kernel(model: Model, alike: Array, left: Points, right: Points) -> Array:
    a, b, c, d, e, _ = model.amplitudes
    line, walk = np.outer(left.time, right.time), np.minimum.outer(left.time, right.time)
    same = left.row[:, None] == right.row[None]
    kernel = a * line + alike[np.ix_(left.row, right.row)] * (b * line + c * walk) + same * (d * line + e * walk)
    return np.asarray(kernel + model.trust * np.outer(left.prior, right.prior))


class _Likelihood:
    """Negative log posterior of the hyper-parameters, with its gradient."""

    def __init__(self, features: Array, seen: Points, values: Array, around: Array, width: float, doubt: Array) -> None:
        self.values, self.around, self.count, self.doubt = values, around, features.shape[1], doubt
        self.width = width * np.array([1.0] * self.count + [1.5] * 5 + [1.0])
        gaps = (features[:, None] - features[None]) ** 2
        self.gaps = gaps.transpose(2, 0, 1).reshape(self.count, -1)
        self.line, self.walk = np.outer(seen.time, seen.time), np.minimum.outer(seen.time, seen.time)
        same = (seen.row[:, None] == seen.row[None]).astype(float)
        self.own_line, self.own_walk = same * self.line, same * self.walk

    def __call__(self, point: Array) -> tuple[float, Array]:
        size, count = len(self.values), self.count
        weight = np.exp(-2 * point[:count])
        a, b, c, d, e, noise = np.exp(point[count:])
        distance = np.sqrt((weight @ self.gaps).reshape(size, size))
        alike, time = _matern(distance), b * self.line + c * self.walk
        shared = a * self.line + alike * time + d * self.own_line + e * self.own_walk
        shared.flat[:: size + 1] += noise + JITTER + self.doubt
        try:
            root = np.linalg.cholesky(shared)
        except np.linalg.LinAlgError:
            return 1e10, np.zeros_like(point)
        inverse = cho_solve((root, True), np.eye(size), check_finite=False)
        weighed = inverse @ self.values
        pull = np.outer(weighed, weighed) - inverse
        slope = 5 / 3 * (1 + ROOT5 * distance) * np.exp(-ROOT5 * distance) * time
        terms = [a * self.line, b * alike * self.line, c * alike * self.walk, d * self.own_line, e * self.own_walk]
        gradient = np.empty_like(point)
        gradient[:count] = -0.5 * weight * (self.gaps @ (pull * slope).ravel())
        gradient[count:] = [-0.5 * float((pull * term).sum()) for term in terms] + [-0.5 * noise * float(np.trace(pull))]
        off = (point - self.around) / self.width
        value = 0.5 * self.values @ weighed + np.log(np.diag(root)).sum() + 0.5 * off @ off
        return float(value), gradient + off / self.width
