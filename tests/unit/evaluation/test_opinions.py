"""The teacher's opinions: of a row nobody has seen it knows what its like teach, of one that it had seen it would know the label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from autoglm_ops.errors import BadData
from autoglm_ops.evaluation.baseline import opinions

GOOD = [f"很好{n}喜欢" for n in range(30)]
BAD = [f"太差{n}失望" for n in range(30)]
TEXTS, LABELS, NAMES = [*GOOD, *BAD], ["pos"] * 30 + ["neg"] * 30, ("neg", "pos")


def asked(texts: list[str], labels: list[str]) -> np.ndarray:
    return opinions(texts, labels, [1.0] * len(texts), texts, range(len(texts)), NAMES)


def test_they_are_probabilities_in_the_order_of_the_names() -> None:
    found = asked(TEXTS, LABELS)
    assert found.shape == (60, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert [NAMES[place] for place in found.argmax(1)] == LABELS


@given(st.integers(0, 59))
@settings(max_examples=12, deadline=None)
def test_a_rows_own_label_says_nothing_of_what_is_thought_of_it_or_of_its_copy(place: int) -> None:
    turned = list(LABELS)
    turned[place] = "neg" if turned[place] == "pos" else "pos"
    copies = [*TEXTS, TEXTS[place][:3]]
    of = [*range(60), place]
    before, after = (opinions(TEXTS, labels, [1.0] * 60, copies, of, NAMES) for labels in (LABELS, turned))
    np.testing.assert_array_equal(before[[place, 60]], after[[place, 60]])
    assert not np.array_equal(before, after), "others hear of it"


def test_the_order_of_rows_does_not_matter() -> None:
    order = np.random.default_rng(0).permutation(60)
    mixed = asked([TEXTS[place] for place in order], [LABELS[place] for place in order])
    np.testing.assert_allclose(mixed, asked(TEXTS, LABELS)[order], atol=1e-3)


def test_the_same_bits_however_many_threads_there_are() -> None:
    random = np.random.default_rng(0)
    texts = [
        "".join(map(chr, random.integers(0x4E00, 0x4E00 + 3000, 200))) for _ in range(400)
    ]  # wide enough to be summed in parts
    labels = [NAMES[place] for place in random.integers(0, 2, 400)]
    found = []
    for threads in (1, 2):
        with threadpool_limits(limits=threads):
            found.append(opinions(texts, labels, [1.0] * 400, texts, range(400), NAMES).tobytes())
    assert found[0] == found[1]


def test_weights_count() -> None:
    texts = [f"{n}同{n + 1}" for n in range(40)]
    labels = ["neg", "pos"] * 20
    heavy = opinions(texts, labels, [9.0, 1.0] * 20, texts, range(40), NAMES)
    assert heavy[:, 0].mean() > 0.7


def test_one_label_is_all_it_can_think_of_and_a_label_it_never_met_gets_nothing() -> None:
    found = asked(GOOD, ["pos"] * 30)
    assert (found == [0, 1]).all()
    three = opinions(TEXTS, LABELS, [1.0] * 60, TEXTS, range(60), ("neg", "new", "pos"))
    assert (three[:, 1] == 0).all()


def test_a_row_without_others_is_refused() -> None:
    with pytest.raises(BadData, match="no training rows"):
        asked(["好"], ["pos"])
