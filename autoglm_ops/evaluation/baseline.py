"""What a model must be worth more than: always the commonest label, and TF-IDF with logistic regression. Owner of scikit-learn."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from autoglm_ops.errors import BadData

FEATURES = 200_000
"""At most this many 1- and 2-character features are kept, the most frequent: it bounds memory on large corpora."""


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
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectoriser = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, max_features=FEATURES)
    model = LogisticRegression(C=10.0, max_iter=1000, tol=1e-5)
    model.fit(vectoriser.fit_transform(texts), labels, sample_weight=list(weights))
    return [str(label) for label in model.predict(vectoriser.transform(asked))]
