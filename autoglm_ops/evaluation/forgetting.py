"""How fast the past goes stale: the half-life of a row's weight under which the last days would have been answered best.

Prequential (Dawid 1984; Gama et al. 2013, doi:10.1007/s10994-012-5320-9): each of the last days is answered by TF-IDF with logistic
regression that saw the days before it, under every half-life. No held-out row is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from typing import NamedTuple

from autoglm_ops.contracts.data import HalfLife
from autoglm_ops.evaluation.baseline import Fit, refitted
from autoglm_ops.evaluation.metrics import Codes, encode, label_names, macro_f1, tally
from autoglm_ops.evaluation.paired import compare

JUDGED = 3
"""Days that are answered, the last ones."""
MOST = 20_000
"""Rows that are looked at, evenly over the days: it bounds the time."""
LONGEST = 365
"""Days of a half-life at most; 1 at least."""
DOUBT = 0.02
"""Two-sided p-value of the difference to all days alike above which the best half-life is not taken: a fifth of the usual, since it is the
best of several. On the bundled days it is 0.009 on the fifth night and at most 0.002 from then on."""
RESAMPLES = 1_000

Decay = Callable[[str, str, float], float]
"""What a row of one ISO day weighs when another is the newest, under a half-life in days; 0 is none."""


class _Row(NamedTuple):
    text: str
    label: str
    weight: float
    day: str

    @property
    def sure(self) -> bool:
        """Whether somebody gave the label: one that is only implied teaches and never judges."""
        return self.weight >= 1


def half_life(
    texts: Sequence[str], labels: Sequence[str], weights: Sequence[float], days: Sequence[str], decay: Decay, seed: int
) -> HalfLife:
    """Of training rows [n] with their ISO days: the best of 1, 2, 4, … days, or 0 (all days alike) where none is clearly better.

    weights: 1 of labels that somebody gave, less of implied ones.
    """
    rows = sorted(map(_Row, texts, labels, weights, days), key=lambda row: row.day)
    rows = rows[:: -(-len(rows) // MOST) or 1]
    judged = sorted({row.day for row in rows if row.sure and row.day > rows[0].day})[-JUDGED:]
    if not judged:
        return HalfLife(
            days=0, scores={}, judged=(), reason="all-alike: there is no day with labels that has days before it to learn from"
        )
    halves, names = [0, *_powers(rows)], label_names([row.label for row in rows])
    answers = {half: list[str]() for half in halves}
    given = refitted([row.text for row in rows], [row.label for row in rows], _fits(rows, judged, halves, decay))
    for place, some in enumerate(given):
        answers[halves[place % len(halves)]] += some
    truth = encode([row.label for day in judged for row in rows if row.day == day and row.sure], names)
    codes = {half: encode(some, names) for half, some in answers.items()}
    return _best(truth, codes, len(names), tuple(judged), seed)


def _powers(rows: Sequence[_Row]) -> Iterator[int]:
    """1, 2, 4, … days, while all but a twentieth of the rows, the oldest, span them."""
    first, last = (date.fromisoformat(row.day) for row in (rows[len(rows) // 20], rows[-1]))
    half = 1
    while half <= min(LONGEST, (last - first).days):
        yield half
        half *= 2


def _fits(rows: Sequence[_Row], judged: Sequence[str], halves: Sequence[int], decay: Decay) -> Iterator[Fit]:
    """Of each judged day, in order, one fit a half-life, in order. Weights have a mean of 1, as in training: a short half-life is no
    stronger regularisation."""
    for today in judged:
        seen = [place for place, row in enumerate(rows) if row.day < today]
        asked = [place for place, row in enumerate(rows) if row.day == today and row.sure]
        for half in halves:
            weights = [rows[place].weight * decay(rows[place].day, rows[seen[-1]].day, half) for place in seen]
            scale = len(weights) / sum(weights)
            yield Fit(seen, [weight * scale for weight in weights], asked)


def _best(truth: Codes, answers: Mapping[int, Codes], labels: int, judged: tuple[str, ...], seed: int) -> HalfLife:
    scores = {half: float(macro_f1(tally(truth, given, labels))) for half, given in answers.items()}
    best, where = max(scores, key=lambda half: (scores[half], half == 0, half)), f"{judged[0]} to {judged[-1]}"
    found = compare("macro_f1", truth, answers[best], answers[0], labels=labels, resamples=RESAMPLES, seed=seed)
    if best and found.p_value <= DOUBT:
        reason = f"stale: macro-F1 on {where} is {scores[best]:.3f} with a half-life of {best} days, {scores[0]:.3f} with all days alike"
    else:
        best, reason = 0, f"all-alike: no half-life is clearly better on {where}, macro-F1 is {scores[0]:.3f} without one"
    rounded = {str(half): round(score, 4) for half, score in scores.items()}
    return HalfLife(days=best, scores=rounded, judged=judged, reason=reason)
