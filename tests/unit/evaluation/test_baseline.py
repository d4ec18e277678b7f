"""The baselines: real ones, deterministic, and sane on awkward training rows."""

from __future__ import annotations

import pytest

from autoglm_ops.errors import BadData
from autoglm_ops.evaluation.baseline import majority, tfidf

TEXTS = ["很好,喜欢", "非常好", "好看", "太差了", "很差,失望", "差评"]
LABELS = ["pos"] * 3 + ["neg"] * 3


def test_majority_takes_the_commonest_and_then_the_first() -> None:
    assert majority(["b", "a", "b"]) == "b"
    assert majority(["b", "a"]) == "a"
    with pytest.raises(BadData, match="no training rows"):
        majority([])


def test_tfidf_learns_and_gives_the_same_answers_again() -> None:
    asked = ["真好", "真差", "?"]
    first = tfidf(TEXTS, LABELS, [1.0] * 6, asked)
    assert first[:2] == ["pos", "neg"]
    assert first == tfidf(TEXTS, LABELS, [1.0] * 6, asked)


def test_weights_count() -> None:
    texts, labels = ["abc", "abc"], ["x", "y"]
    assert tfidf(texts, labels, [9.0, 1.0], ["abc"]) == ["x"]
    assert tfidf(texts, labels, [1.0, 9.0], ["abc"]) == ["y"]


def test_one_label_is_all_it_can_say() -> None:
    assert tfidf(["a", "b"], ["only", "only"], [1.0, 1.0], ["c", "d"]) == ["only", "only"]
