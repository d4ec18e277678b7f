"""The half-life is short where what words mean turns round, and none where it stays; never the fault of too few rows or days."""

from __future__ import annotations

import random
from datetime import date, timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.contracts.data import HalfLife
from autoglm_ops.data.weights import decay
from autoglm_ops.evaluation import forgetting
from autoglm_ops.evaluation.forgetting import half_life

WORDS = [chr(0x4E00 + place) for place in range(40)]


def world(days: int, rows: int, turn: int | None, seed: int = 3) -> tuple[list[str], list[str], list[str]]:
    """Texts, labels and days: half of the words are praise, and from day `turn` on they are blame."""
    draw = random.Random(seed)
    texts, labels, when = [], [], []
    for day in range(days):
        for _ in range(rows):
            chosen = draw.choices(WORDS, k=9)
            good = sum(WORDS.index(word) < 20 for word in chosen) > 4
            texts.append("".join(chosen))
            labels.append("pos" if good == (turn is None or day < turn) else "neg")
            when.append((date(2026, 1, 1) + timedelta(days=day)).isoformat())
    return texts, labels, when


def found(texts: list[str], labels: list[str], days: list[str]) -> HalfLife:
    return half_life(texts, labels, [1.0] * len(texts), days, decay, 7)


def test_where_words_turned_round_the_past_is_forgotten() -> None:
    said = found(*world(10, 120, turn=5))
    assert 0 < said.days <= 2 and said.reason.startswith("stale")
    assert said.judged == ("2026-01-08", "2026-01-09", "2026-01-10")
    assert said.scores[f"{said.days:g}"] == max(said.scores.values()) > said.scores["0"] + 0.05
    assert list(said.scores) == ["0", "1", "2", "4", "8"]


def test_where_nothing_turns_all_days_stay_alike() -> None:
    said = found(*world(8, 60, turn=None))
    assert said.days == 0 and said.reason.startswith("all-alike")


def test_the_same_rows_in_another_order_say_the_same() -> None:
    rows = list(zip(*world(6, 40, turn=3), strict=True))
    random.Random(1).shuffle(rows)
    texts, labels, days = (list(column) for column in zip(*rows, strict=True))
    assert found(texts, labels, days).days == found(*world(6, 40, turn=3)).days


def test_where_labels_are_noisy_and_nothing_turns_all_days_stay_alike() -> None:
    for seed in range(6):
        texts, labels, days = world(8, 40, turn=None, seed=seed)
        draw = random.Random(seed)
        noisy = [label if draw.random() < 0.75 else {"pos": "neg", "neg": "pos"}[label] for label in labels]
        assert found(texts, noisy, days).days == 0


def test_of_many_rows_some_of_each_day_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forgetting, "MOST", 600)
    said = found(*world(10, 120, turn=5))
    assert list(said.scores) == ["0", "1", "2", "4", "8"] and len(said.judged) == forgetting.JUDGED and 0 < said.days <= 2


def test_one_old_row_is_no_reason_to_try_long_half_lives() -> None:
    texts, labels, days = world(6, 40, turn=3)
    assert list(found(["old", *texts], ["pos", *labels], ["1990-01-01", *days]).scores) == ["0", "1", "2", "4"]


def test_labels_that_nobody_gave_teach_and_do_not_judge() -> None:
    texts, labels, days = world(8, 80, turn=None)
    sure = [row % 2 == 0 or day < "2026-01-06" for row, day in enumerate(days)]
    wrong = [label if kept else {"pos": "neg", "neg": "pos"}[label] for label, kept in zip(labels, sure, strict=True)]
    said = half_life(texts, wrong, [1.0 if kept else 0.1 for kept in sure], days, decay, 7)
    assert said.scores["0"] > 0.7, "half of the judged days' rows have wrong labels, and none of them is asked"
    nobody = half_life(texts, labels, [0.5] * len(texts), days, decay, 7)
    assert nobody.days == 0 and nobody.judged == ()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.text(min_size=1, max_size=6), st.sampled_from("abc"), st.integers(0, 9)), min_size=1, max_size=30))
def test_a_few_odd_rows_are_no_fault(rows: list[tuple[str, str, int]]) -> None:
    texts, labels = [text for text, _, _ in rows], [label for _, label, _ in rows]
    days = [f"2026-01-{day + 1:02d}" for _, _, day in rows]
    said = found(texts, labels, days)
    assert said.days in (0, 1, 2, 4, 8) and len(said.judged) == min(forgetting.JUDGED, len(set(days)) - 1)
    assert (said.days == 0) == said.reason.startswith("all-alike")
