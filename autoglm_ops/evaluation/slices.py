"""Cuts of the gate's rows: by day, by label, by length. A model that is better on the whole may still fail one of them."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.contracts.release import SliceResult
from autoglm_ops.evaluation.metrics import Codes, score
from autoglm_ops.evaluation.paired import compare

LENGTHS = (16, 64, 256)
"""Upper ends of the length bands in characters, fixed so that slices of different days are comparable."""
_BANDS = ("1-16", "17-64", "65-256", "257+")

Mask = NDArray[np.bool_]


def cuts(texts: Sequence[str], days: Sequence[str], labels: Sequence[str]) -> Iterator[tuple[str, Mask]]:
    """Name and rows [n] of every slice that has rows, in a fixed order."""
    bands = [_BANDS[bisect_left(LENGTHS, len(text))] for text in texts]
    for kind, values, order in (
        ("day", days, sorted(set(days))),
        ("label", labels, sorted(set(labels))),
        ("length", bands, _BANDS),
    ):
        column = np.array(values, dtype=object)
        for value in order:
            mask = np.asarray(column == value, dtype=np.bool_)
            if mask.any():
                yield f"{kind}={value}", mask


def slice_result(metric: str, name: str, codes: Mapping[str, Codes], *, labels: int, resamples: int, seed: int) -> SliceResult:
    """Candidate and champion on one slice's rows, whose "truth", "candidate" and perhaps "champion" are in `codes`, each [rows].

    Over the rows of a single label macro-F1 would be a bent recall, so on a label slice it is the recall itself.
    """
    measure = "accuracy" if name.startswith("label=") else metric
    truth, candidate, champion = codes["truth"], codes["candidate"], codes.get("champion")
    own = score(measure, truth, candidate, labels)
    if champion is None:
        return SliceResult(name=name, rows=len(truth), candidate=own, champion=None)
    paired = compare(measure, truth, candidate, champion, labels=labels, resamples=resamples, seed=seed)
    return SliceResult(
        name=name,
        rows=len(truth),
        candidate=own,
        champion=score(measure, truth, champion, labels),
        difference=paired.difference,
        p_value=paired.p_value,
    )
