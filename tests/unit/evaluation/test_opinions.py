"""The teacher's opinions: of a row nobody has seen it knows what its like teach, of one that it had seen it would know the label."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from autoglm_ops.errors import BadData
from autoglm_ops.evaluation.baseline import opinions, raked

GOOD = [f"很好{n}喜欢" for n in range(30)]
BAD = [f"太差{n}失望" for n in range(30)]
TEXTS, LABELS, NAMES = [*GOOD, *BAD], ["pos"] * 30 + ["neg"] * 30, ("neg", "pos")


def asked(texts: list[str], labels: list[str]) -> np.ndarray:
    return opinions(texts, labels, [1.0] * len(texts), [""] * len(texts), texts, range(len(texts)), NAMES)


def test_they_are_probabilities_in_the_order_of_the_names() -> None:
    found = asked(TEXTS, LABELS)
    assert found.shape == (60, 2) and found.dtype == np.float32
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-6)
    assert [NAMES[place] for place in found.argmax(1)] == LABELS


@given(st.integers(0, 59))
@settings(max_examples=12, deadline=None)
def test_a_rows_own_label_says_no_more_of_it_or_of_its_copy_than_its_part_in_the_share_of_its_day(place: int) -> None:
    turned = list(LABELS)
    turned[place] = "neg" if turned[place] == "pos" else "pos"
    copies = [*TEXTS, TEXTS[place][:3]]
    of = [*range(60), place]
    before, after = (opinions(TEXTS, labels, [1.0] * 60, [""] * 60, copies, of, NAMES) for labels in (LABELS, turned))
    # At most 0.052 of all sixty rows; what had learned from the row would think of it otherwise by 0.45.
    np.testing.assert_allclose(
        before[[place, 60]], after[[place, 60]], atol=0.1, err_msg="more than its part in the share of its day"
    )
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
            found.append(opinions(texts, labels, [1.0] * 400, [""] * 400, texts, range(400), NAMES).tobytes())
    assert found[0] == found[1]


def test_weights_count() -> None:
    texts = [f"{n}同{n + 1}" for n in range(40)]
    labels = ["neg", "pos"] * 20
    heavy = opinions(texts, labels, [9.0, 1.0] * 20, [""] * 40, texts, range(40), NAMES)
    assert heavy[:, 0].mean() > 0.7


def test_one_label_is_all_it_can_think_of_and_a_label_it_never_met_gets_nothing() -> None:
    found = asked(GOOD, ["pos"] * 30)
    assert (found == [0, 1]).all()
    three = opinions(TEXTS, LABELS, [1.0] * 60, [""] * 60, TEXTS, range(60), ("neg", "new", "pos"))
    assert (three[:, 1] == 0).all()


def test_a_row_without_others_is_refused() -> None:
    with pytest.raises(BadData, match="no training rows"):
        asked(["好"], ["pos"])


def test_a_day_of_other_texts_is_thought_as_positive_on_the_whole_as_it_is() -> None:
    texts = [*TEXTS, *(f"房间{n}{'很好' if n % 4 else '太差'}" for n in range(40))]
    labels = [*LABELS, *("pos" if n % 4 and n % 3 else "neg" for n in range(40))]
    days = ["2026-01-01"] * 60 + ["2026-01-02"] * 40
    found = opinions(texts, labels, [1.0] * 100, days, texts, range(100), NAMES)
    assert found[60:, 1].mean() == pytest.approx(labels[60:].count("pos") / 40, abs=0.06)
    assert found[:60, 1].mean() == pytest.approx(0.5, abs=0.02)


@given(
    st.lists(st.tuples(st.floats(0, 1), st.booleans(), st.floats(0.001, 5)), min_size=1, max_size=50),
)
@settings(deadline=None)
def test_raked_opinions_keep_their_order_and_have_the_labels_share(rows: list[tuple[float, bool, float]]) -> None:
    positive, weights = np.array([p for p, _, _ in rows]), np.array([w for *_, w in rows])
    is_positive = np.array([label for _, label, _ in rows])
    thought = np.stack([1 - positive, positive], 1).astype(np.float32)
    found = raked(thought, np.stack([~is_positive, is_positive]), weights)
    np.testing.assert_allclose(found.sum(1), 1, atol=1e-5)
    order = np.argsort(positive)
    assert (np.diff(found[order, 1]) >= -1e-5).all()
    part = weights / weights.sum()
    before, after, share = thought[:, 1] @ part, found[:, 1] @ part, is_positive @ part
    assert abs(after - share) <= abs(before - share) + 1e-4, "never further from the share than before"


def test_few_rows_say_little() -> None:
    thought = np.full((2, 2), 0.5, np.float32)
    found = raked(thought, np.array([[False, False], [True, True]]), np.ones(2))
    assert 0.5 < found[0, 1] < 0.6


def test_a_label_that_a_day_lacks_is_thought_of_less_and_rows_of_no_weight_are_left_as_they_are() -> None:
    thought = np.tile(np.array([[0.2, 0.3, 0.5]], np.float32), (1000, 1))
    is_label = np.zeros((3, 1000), bool)
    is_label[0, :400], is_label[2, 400:] = True, True
    assert raked(thought, is_label, np.ones(1000))[0] == pytest.approx([0.4, 0.006, 0.6], abs=0.01)
    np.testing.assert_array_equal(raked(thought, is_label, np.zeros(1000)), thought)
