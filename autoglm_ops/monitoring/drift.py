"""Drift: how far the texts of a window are from the training texts. Pure; numpy alone.

Hashed characters see a new domain without a vocabulary: books to hotels moves them, two halves of a day do not.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.contracts.feedback import DriftReport, Profile

BUCKETS = 64
LENGTHS = (0, 8, 16, 32, 64, 128, 256, 512)  # characters; the last bin is open
_MIX = np.uint64(0x9E3779B97F4A7C15)  # Fibonacci hashing (Knuth, TAOCP 6.4): stable over processes, unlike hash()
_FLOOR = 1e-4  # an empty bin counts as this share: PSI and KL have no value at zero

Shares = NDArray[np.float64]


def profile(texts: Sequence[str], labels: Sequence[str] | None = None) -> Profile:
    """The profile of `texts`. Every row weighs the same, however long: one long review is not a new domain."""
    characters, bigrams = np.zeros(BUCKETS), np.zeros(BUCKETS)
    for text in texts:
        codes = np.frombuffer(text.encode("utf-32-le"), np.uint32).astype(np.uint64)
        characters += _histogram(codes)
        bigrams += _histogram(codes[:-1] << np.uint64(21) | codes[1:])
    lengths = np.digitize([len(text) for text in texts], LENGTHS) - 1
    return Profile(
        rows=len(texts),
        length=_shares(np.bincount(lengths, minlength=len(LENGTHS)).astype(float)),
        characters=_shares(characters),
        bigrams=_shares(bigrams),
        labels={label: count / len(texts) for label, count in sorted(Counter(labels or ()).items())},
    )


def drift(reference: Profile, current: Profile, psi: float, kl: float, min_rows: int) -> tuple[DriftReport, ...]:
    """One report per feature: PSI of length and labels against `psi`, KL(current || reference) in nats of the hashed characters and
    bigrams against `kl`. Below `min_rows` rows, or where labels are not known on both sides, nothing is said.
    """
    if min(reference.rows, current.rows) < min_rows:
        return ()
    reports = [
        _report("length", "psi", _psi(_floored(current.length), _floored(reference.length)), psi, current.rows),
        _report("characters", "kl", _kl(_floored(current.characters), _floored(reference.characters)), kl, current.rows),
        _report("bigrams", "kl", _kl(_floored(current.bigrams), _floored(reference.bigrams)), kl, current.rows),
    ]
    if reference.labels and current.labels:
        names = sorted(reference.labels.keys() | current.labels.keys())
        value = _psi(_by_name(current.labels, names), _by_name(reference.labels, names))
        reports.append(_report("labels", "psi", value, psi, current.rows))
    return tuple(reports)


def _report(feature: str, kind: str, value: float, threshold: float, rows: int) -> DriftReport:
    fields = {"feature": feature, "kind": kind, "value": round(value, 6), "threshold": threshold}
    return DriftReport.model_validate({**fields, "rows": rows, "drifted": value > threshold})


def _histogram(codes: NDArray[np.uint64]) -> Shares:
    """Shares of one text over the buckets; zeros for an empty one."""
    if not codes.size:
        return np.zeros(BUCKETS)
    places = (codes * _MIX >> np.uint64(58)).astype(np.int64)
    return np.bincount(places, minlength=BUCKETS) / codes.size


def _shares(counts: Shares) -> tuple[float, ...]:
    total = counts.sum()
    return tuple((counts / total).tolist()) if total else tuple(counts.tolist())


def _floored(shares: Sequence[float]) -> Shares:
    floored = np.maximum(np.asarray(shares), _FLOOR)
    return np.asarray(floored / floored.sum())


def _by_name(shares: Mapping[str, float], names: Sequence[str]) -> Shares:
    return _floored([shares.get(name, 0.0) for name in names])


def _psi(current: Shares, reference: Shares) -> float:
    """Population stability index: the symmetrised KL divergence."""
    return float(np.sum((current - reference) * np.log(current / reference)))


def _kl(current: Shares, reference: Shares) -> float:
    return float(np.sum(current * np.log(current / reference)))
