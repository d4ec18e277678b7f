"""Whose labels of a day are not believed: reporters that disagree with the answers far more, or less, than reporters do. Pure.

The median over independent reporters stands while fewer than half of them are hostile (threats F25); with fewer than LEAST nobody can
be told apart. A reporter is compared with others of the same day only: the champion's quality changes from day to day.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import groupby
from statistics import median

from autoglm_ops.contracts.serving import ReporterTally

LEAST = 3
MIN_ROWS = 8
"""A reporter of fewer rows cannot be judged, and cannot weigh much."""
FAR = 3.5
"""Distances from the median, in standard errors, that chance does not reach (Iglewicz & Hoaglin 1993)."""
UNLIKE = 0.03
"""Standard deviation of the shares of honest reporters beyond chance: each sees texts of its own. A spread taken from the reporters
themselves let three hostile ones of ten widen it until they passed (in 7 % of days)."""

Source = tuple[str, str]
"""(day, source)."""


def distrusted(tallies: Iterable[ReporterTally]) -> dict[Source, str]:
    """The (day, source) pairs to leave out, and why."""
    found: dict[Source, str] = {}
    for day, group in groupby(sorted(tallies, key=lambda tally: (tally.day, tally.source)), key=lambda tally: tally.day):
        judged = [tally for tally in group if tally.rows >= MIN_ROWS]
        if len(judged) >= LEAST:
            found |= {(day, source): reason for source, reason in _outliers(judged)}
    return found


def _outliers(tallies: Sequence[ReporterTally]) -> Iterable[tuple[str, str]]:
    rates = {tally.source: tally.agreed / tally.rows for tally in tallies}
    middle = median(rates.values())
    for tally in tallies:
        share = min(max(middle, 0.5 / tally.rows), 1 - 0.5 / tally.rows)
        error = math.sqrt(share * (1 - share) / tally.rows + UNLIKE**2)
        if abs(rates[tally.source] - middle) > FAR * error:
            told = f"agrees with {rates[tally.source]:.2f} of {tally.rows} answers, {len(tallies)} reporters with {middle:.2f}"
            yield tally.source, f"outlier: {told}"
