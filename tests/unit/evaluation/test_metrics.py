"""The numpy metrics against scikit-learn's, and their edges."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from autoglm_ops.errors import UsageError
from autoglm_ops.evaluation.metrics import confusion, encode, label_names, metric, score, tally

PAIRS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=60)


@given(PAIRS)
def test_equal_to_sklearn(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = (np.array(column) for column in zip(*pairs, strict=True))
    expected = f1_score(truth, predicted, labels=sorted(set(truth)), average="macro", zero_division=0)
    assert score("macro_f1", truth, predicted, 5) == pytest.approx(expected, abs=1e-12)
    assert score("accuracy", truth, predicted, 5) == pytest.approx(accuracy_score(truth, predicted), abs=1e-12)


def test_a_label_only_a_model_knows_is_an_error_and_no_class() -> None:
    names = label_names(["a", "b"], ["c"])
    truth, predicted = encode(["a", "b", "a", "b"], names), encode(["a", "b", "c", "b"], names)
    assert score("macro_f1", truth, predicted, 3) == pytest.approx((2 / 3 + 1) / 2)


def test_no_rows_score_zero_and_not_nan() -> None:
    empty = np.array([], dtype=np.int64)
    assert metric("macro_f1")(tally(empty, empty, 2)) == 0
    assert metric("accuracy")(tally(empty, empty, 2)) == 0


def test_confusion_names_every_pair_and_counts_every_row() -> None:
    names = ("a", "b", "c")
    counts = confusion(encode(["a", "b", "b"], names), encode(["a", "a", "b"], names), names)
    assert counts == {"a": {"a": 1, "b": 0, "c": 0}, "b": {"a": 1, "b": 1, "c": 0}, "c": {"a": 0, "b": 0, "c": 0}}


def test_unknown_names_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'auc'; known: macro_f1, accuracy"):
        metric("auc")
    with pytest.raises(UsageError, match="'z' is not among a, b"):
        encode(["a", "z"], ("a", "b"))
