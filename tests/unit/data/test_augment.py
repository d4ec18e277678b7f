"""Augmentation: of training rows alone, by seed and content alone, and never a text that is held out (spec D10)."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.data.augment import OPERATIONS, Options, augment
from autoglm_ops.data.dedup import normalise
from autoglm_ops.data.split import Shares, check_leakage, side
from autoglm_ops.data.tables import Sample
from autoglm_ops.errors import SettingsError

SHARES = Shares(holdout=0.15, validation=0.1, gate_days=1, window_days=0)
CHINESE = "这本书很好，内容不错。物流也快！下次再来。"
LATIN = "The room was clean, and the staff don't care. Never again! 5 stars?"

words = st.sampled_from(["书", "很好", "好", "a", "the", "don't", "good", "，", "。", ". ", " ", "!", "\n", "𠀀", "🙂", "カ"])
texts = st.lists(words, max_size=14).map("".join) | st.text(max_size=20)
trains = st.lists(
    st.tuples(texts, st.sampled_from(["pos", "neg"])), max_size=25, unique_by=lambda item: normalise(item[0])
).map(lambda items: [Sample(f"r{n}", text, label, "2026-01-01", "s", 1.0) for n, (text, label) in enumerate(items)])
options = st.builds(
    Options,
    copies=st.integers(0, 3),
    operations=st.lists(st.sampled_from(sorted(OPERATIONS)), min_size=1, unique=True).map(tuple),
    share=st.floats(0.01, 0.9),
    seed=st.integers(0, 2**31 - 1),
)


@settings(max_examples=150, deadline=None)
@given(trains, options)
def test_copies_are_of_training_rows_with_their_label_and_all_are_counted(train: list[Sample], asked: Options) -> None:
    before = list(train)
    made = augment(train, SHARES, asked)
    assert train == before
    assert len(made.copies) + sum(made.dropped.values()) == asked.copies * len(train)
    home = {row.id: row for row in train}
    for copy in made.copies:
        parent = home[copy.parent]
        assert copy[2:-1] == parent[2:] and copy.id.startswith(f"{parent.id}~")
        assert set(copy.text) <= set(parent.text) and len(copy.text) <= len(parent.text)


@settings(max_examples=150, deadline=None)
@given(trains, options)
def test_no_copy_is_a_held_out_text_of_any_day_nor_another_row(train: list[Sample], asked: Options) -> None:
    made = augment(train, SHARES, asked).copies
    keys = [normalise(copy.text) for copy in made]
    assert all(key and side(key, SHARES) == "train" for key in keys)
    assert len({*keys, *(normalise(row.text) for row in train)}) == len(keys) + len(train)


@settings(max_examples=100, deadline=None)
@given(trains, options, st.randoms(use_true_random=False))
def test_another_order_makes_the_same_copies(train: list[Sample], asked: Options, draw: random.Random) -> None:
    made = augment(train, SHARES, asked)
    assert augment(train, SHARES, asked) == made
    moved = draw.sample(train, len(train))
    other = augment(moved, SHARES, asked)
    assert (set(other.copies), other.dropped) == (set(made.copies), made.dropped)


def test_more_copies_begin_with_the_fewer_and_another_seed_makes_others() -> None:
    train = [Sample(f"r{n}", f"{CHINESE}{n}", "pos", "2026-01-01", "s", 1.0) for n in range(50)]

    def made(copies: int, seed: int) -> set[str]:
        return {copy.text for copy in augment(train, SHARES, Options(copies, tuple(OPERATIONS), 0.1, seed)).copies}

    assert made(1, 7) < made(2, 7)
    assert len(made(1, 7) & made(1, 8)) < 10


@pytest.mark.parametrize(
    ("name", "text", "copy"),
    [
        ("delete", CHINESE, "本很好，容不错。流也快！下来。"),
        ("swap", CHINESE, "很本容这好，内书不错。物流也快！下次再来。"),
        ("crop", CHINESE, "容不错。物流也快！下次"),
        ("shuffle", CHINESE, "这本书很好，内容不错。下次再来。物流也快！"),
        ("delete", LATIN, "room clean, and staff don't care. again! 5 stars?"),
        ("swap", LATIN, "The room was care, and the staff don't clean. Never again! 5 stars?"),
        ("crop", LATIN, "The room was clean, and the staff don't care. Never again! "),
        ("shuffle", LATIN, "The room was clean, and the staff don't care. 5 stars? Never again!"),
    ],
)
def test_an_operation_s_copy_is_the_same_on_every_machine(name: str, text: str, copy: str) -> None:
    """Pinned: another draw would be another dataset under the same seed."""
    assert OPERATIONS[name](text, b"x", 0.2) == copy


def test_delete_takes_about_its_share_and_crop_keeps_half() -> None:
    text = "字" * 2000
    assert len(OPERATIONS["delete"](text, b"s", 0.1)) / 2000 == pytest.approx(0.9, abs=0.03)
    assert all(1000 <= len(OPERATIONS["crop"](text, b"%d" % n, 0.1)) <= 2000 for n in range(50))


def test_what_would_leak_is_drawn_again_and_at_last_counted() -> None:
    """A row of two words has one other order: where that is held out no draw helps."""
    pairs = [f"left{n} right{n}" for n in range(400)]
    train = [Sample(text, text, "x", "2026-01-01", "s", 1.0) for text in pairs if side(text, SHARES) == "train"]
    made = augment(train, SHARES, Options(1, ("swap",), 0.5, 7))
    held = [row for row in train if side(" ".join(reversed(row.text.split())), SHARES) != "train"]
    assert made.dropped.get("held-out", 0) >= 0.5 * len(held) > 0
    assert not {copy.parent for copy in made.copies} & {row.id for row in held}
    check_leakage(
        {"train": [copy.sample() for copy in made.copies], "gate": [row._replace(text=row.text[::-1]) for row in held]}
    )


def test_copies_that_agree_in_text_and_not_in_label_are_all_dropped() -> None:
    train = [
        Sample(str(n), text, label, "2026-01-01", "s", 1.0) for n, (text, label) in enumerate([("a b", "x"), ("b  a ", "y")])
    ]
    known = augment(train, Shares(0.0, 0.0, 1, 0), Options(2, ("swap",), 0.5, 7))
    assert not known.copies and set(known.dropped) <= {"repeated", "unchanged"}  # each is the other's only copy
    train = [
        Sample(str(n), text, label, "2026-01-01", "s", 1.0) for n, (text, label) in enumerate([("a b c", "x"), ("c a b", "y")])
    ]
    made = augment(train, Shares(0.0, 0.0, 1, 0), Options(16, ("swap",), 0.3, 7))
    assert made.dropped["label-conflict"] >= 2
    assert len({normalise(copy.text) for copy in made.copies}) == len(made.copies)


@pytest.mark.parametrize(("copies", "operations"), [(1, ()), (0, ("translate",)), (2, ("swap", "eda"))])
def test_operations_nobody_knows_are_refused(copies: int, operations: tuple[str, ...]) -> None:
    with pytest.raises(
        SettingsError, match=r"prepare\.augment\.operations = .* must name one or more of delete, swap, crop, shuffle"
    ):
        Options(copies, operations, 0.1, 7)
