"""How fast the past goes stale: the half-life of a row's weight under which the last days would have been answered best.

Prequential (Dawid 1984; Gama et al. 2013, doi:10.1007/s10994-012-5320-9): each of the last days is answered by TF-IDF with logistic
regression that saw the days before it, under every half-life. No held-out row is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date

from autoglm_ops.contracts.data import HalfLife
from autoglm_ops.evaluation.baseline import Fit, refitted
from autoglm_ops.evaluation.metrics import Codes, encode, label_names, macro_f1, tally
from autoglm_ops.evaluation.paired import compare

JUDGED = 3
"""Days that are answered, the last ones."""
MOST = 20_000
"""Rows that are looked at, the newest ones: it bounds the time, and older ones hardly weigh under a half-life that is worth having."""
DOUBT = 0.32
"""Two-sided p-value above which a half-life is no better than none: one standard error (Breiman et al. 1984)."""
RESAMPLES = 1_000

Decay = Callable[[str, str, float], float]
"""What a row of one ISO day weighs when another is the newest, under a half-life in days; 0 is none."""


def half_life(
    texts: Sequence[str], labels: Sequence[str], weights: Sequence[float], days: Sequence[str], decay: Decay, seed: int
) -> HalfLife:
    """Of training rows [n] with their ISO days: the best of 1, 2, 4, … days, or 0 (all days alike) where none is clearly better.

    Raises UsageError without rows.
    """
    newest = sorted(range(len(days)), key=lambda row: days[row])[-MOST:]
    rows = [(texts[row], labels[row], weights[row], days[row]) for row in newest]
    known = sorted({day for *_, day in rows})
    judged = known[1:][-JUDGED:]
    if not judged:
        alone = f"all-alike: there is no other day than {''.join(known)} to learn from"
        return HalfLife(days=0, scores={}, judged=(), reason=alone)
    halves, names = [0, *_powers(known)], label_names([label for _, label, *_ in rows])
    answers = {half: list[str]() for half in halves}
    fits = _fits([(day, weight) for *_, weight, day in rows], judged, halves, decay)
    for place, given in enumerate(refitted([text for text, *_ in rows], [label for _, label, *_ in rows], fits)):
        answers[halves[place % len(halves)]] += given
    truth = encode([label for today in judged for _, label, _, day in rows if day == today], names)
    codes = {half: encode(given, names) for half, given in answers.items()}
    return _best(truth, codes, len(names), tuple(judged), seed)


def _powers(known: Sequence[str]) -> Iterator[int]:
    """1, 2, 4, … days, up to the span of the `known` ones."""
    span, half = (date.fromisoformat(known[-1]) - date.fromisoformat(known[0])).days, 1
    while half <= span:
        yield half
        half *= 2


def _fits(rows: Sequence[tuple[str, float]], judged: Sequence[str], halves: Sequence[int], decay: Decay) -> Iterator[Fit]:
    """Of each judged day, in order, one fit a half-life, in order. rows: their days and weights."""
    for today in judged:
        seen = [row for row, (day, _) in enumerate(rows) if day < today]
        asked = [row for row, (day, _) in enumerate(rows) if day == today]
        newest = max(rows[row][0] for row in seen)
        for half in halves:
            yield Fit(seen, [weight * decay(day, newest, half) for day, weight in map(rows.__getitem__, seen)], asked)


def _best(truth: Codes, answers: Mapping[int, Codes], labels: int, judged: tuple[str, ...], seed: int) -> HalfLife:
    scores, p_values = dict[int, float](), dict[int, float]()
    for half, given in answers.items():
        scores[half] = float(macro_f1(tally(truth, given, labels)))
        p_values[half] = compare("macro_f1", truth, given, answers[0], labels=labels, resamples=RESAMPLES, seed=seed).p_value
    best, where = max(scores, key=lambda half: (scores[half], half == 0, half)), f"{judged[0]} to {judged[-1]}"
    if best and p_values[best] <= DOUBT:
        reason = f"stale: macro-F1 on {where} is {scores[best]:.3f} with a half-life of {best} days, {scores[0]:.3f} with all days alike"
    else:
        best, reason = 0, f"all-alike: no half-life is clearly better on {where}, macro-F1 is {scores[0]:.3f} without one"
    rounded = {str(half): round(score, 4) for half, score in scores.items()}
    return HalfLife(days=best, scores=rounded, judged=judged, reason=reason)
