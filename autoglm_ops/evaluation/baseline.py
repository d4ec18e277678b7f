"""What a model must be worth more than: always the commonest label, and TF-IDF with logistic regression. Owner of scikit-learn.

The latter is also a teacher (`opinions`): a small model that is trained on little learns more from a label softened by what a
simple one thinks of the row (Hinton et al. 2015, arXiv:1503.02531), if that one has not seen the row.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.errors import BadData

FEATURES = 200_000
"""At most this many 1- and 2-character features are kept, the most frequent: it bounds memory on large corpora."""
FOLDS = 5
"""A teacher thinks of each fifth of the rows what the other four fifths taught it."""
PRIOR, RAKINGS, TINY = 20, 50, 1e-12


def majority(labels: Sequence[str]) -> str:
    """The commonest label, the alphabetically first of equals. Raises BadData without labels."""
    if not labels:
        raise BadData("no training rows to take the commonest label from; run `autoglm stage prepare` on data that has some")
    counts = Counter(labels)
    return min(counts, key=lambda label: (-counts[label], label))


def tfidf(texts: Sequence[str], labels: Sequence[str], weights: Sequence[float], asked: Sequence[str]) -> list[str]:
    """Answers [m] to `asked` of character 1-2-gram TF-IDF + logistic regression fitted on the training rows [n].

    Deterministic: lbfgs draws no random numbers. Trained on one label only, it knows only that one.
    """
    only = majority(labels)
    if len(set(labels)) == 1:
        return [only] * len(asked)
    vectoriser, model = _parts()
    _learned(model, vectoriser.fit_transform(texts), labels, weights)
    return [str(label) for label in model.predict(vectoriser.transform(asked))]


class Fit(NamedTuple):
    """One fit: the row numbers it learns from, what each of them weighs, and the row numbers it is asked for."""

    seen: Sequence[int]
    weights: Sequence[float]
    asked: Sequence[int]


def refitted(texts: Sequence[str], labels: Sequence[str], fits: Iterable[Fit]) -> Iterator[list[str]]:
    """Each fit's answers to the rows it is asked for. The features are those of all texts [n], counted once, since that takes longer
    than a fit; their labels are seen by the fits alone."""
    vectoriser, model = _parts()
    found = vectoriser.fit_transform(texts)
    for fit in fits:
        known = [labels[place] for place in fit.seen]
        if len(set(known)) == 1:
            yield known[:1] * len(fit.asked)
        else:
            _learned(model, found[fit.seen], known, fit.weights)
            yield [str(label) for label in model.predict(found[fit.asked])]


def opinions(
    texts: Sequence[str],
    labels: Sequence[str],
    weights: Sequence[float],
    days: Sequence[str],
    asked: Sequence[str],
    origins: Sequence[int],
    names: Sequence[str],
) -> NDArray[np.float32]:
    """Probabilities [m, names] that TF-IDF + logistic regression gives each `asked` text [m], not having learned from the row of `texts`
    that it is or was made of (`origins`, row numbers [m]). Which rows are left out together hangs on their texts alone, not on their
    order; the features are those of all texts, counted once. The probabilities of each of `days` [n] are `raked`: of a row's own label
    they hear as of one in that day's share.

    Raises BadData where the rows are so few that a fold's others are none.
    """
    folds = np.array([int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") % FOLDS for text in texts], np.int64)
    asked_folds = folds[np.asarray(origins, np.int64)]
    vectoriser, model = _parts()
    known, wanted = vectoriser.fit_transform(texts), vectoriser.transform(asked)
    found = np.zeros((len(asked), len(names)), np.float32)
    for fold in np.unique(asked_folds):
        seen, mine = np.flatnonzero(folds != fold).tolist(), np.flatnonzero(asked_folds == fold)
        taught = [labels[place] for place in seen]
        commonest = majority(taught)
        if set(taught) == {commonest}:
            found[mine, names.index(commonest)] = 1
        else:
            _learned(model, known[seen], taught, [weights[place] for place in seen])
            places = np.array([names.index(str(label)) for label in model.classes_])
            found[np.ix_(mine, places)] = model.predict_proba(wanted[mine])
    truth, heavy, of = (np.asarray(given)[np.asarray(origins, np.int64)] for given in (labels, weights, days))
    for day in np.unique(of):
        mine = of == day
        found[mine] = raked(found[mine], truth[mine] == np.array(names)[:, None], heavy[mine])
    return found


def raked(thought: NDArray[np.float32], is_label: NDArray[np.bool_], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Probabilities [n, labels], each label's odds multiplied so that their mean is that label's share; is_label [labels, n], weights [n].

    What is taught by four domains and asked of a fifth leans to a side: of the first night of other texts 0.405 was thought positive
    where 0.485 was, and a student repeats it (macro-F1 of the next day 0.649; raked 0.688, mean of four seeds). Iterative proportional
    fitting (Deming & Stephan 1940). The share is held back by PRIOR rows of what was thought, so that few rows say little. A slope
    besides, which makes opinions surer, was no better.
    """
    if not weights.sum():
        return thought
    part = weights / weights.sum()
    share = (is_label @ part * len(part) + thought.T @ part * PRIOR) / (len(part) + PRIOR)
    found = thought.astype(np.float64)
    for _ in range(RAKINGS):
        found *= share / np.maximum(found.T @ part, TINY)
        found /= found.sum(1, keepdims=True)
    return found.astype(np.float32)


def _parts() -> tuple[Any, Any]:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectoriser = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, max_features=FEATURES)
    return vectoriser, LogisticRegression(C=10.0, max_iter=1000, tol=1e-5)


def _learned(model: Any, features: Any, labels: Sequence[str], weights: Sequence[float]) -> None:
    """Fit, of two labels at least. On one thread: the sums of several differ with their number, and what a teacher thinks is an output
    with a digest."""
    from threadpoolctl import threadpool_limits

    with threadpool_limits(limits=1):
        model.fit(features, labels, sample_weight=list(weights))
