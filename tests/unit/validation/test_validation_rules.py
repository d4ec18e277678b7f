"""Row rules: one reason word for each row turned away, and no row lost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.validation.rules import Limits, budget, fault, sift

LIMITS = Limits(min_chars=2, max_chars=10, labels=frozenset({"pos", "neg"}))
GOOD = {"id": "a", "text": "fine", "label": "pos", "timestamp": "2026-01-31", "source": "s", "line": 1}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({}, None),
        ({"text": None}, "null-text"),
        ({"text": " \u3000\n"}, "empty-text"),
        ({"text": "a"}, "text-too-short"),
        ({"text": "ab"}, None),
        ({"text": "a" * 10}, None),
        ({"text": "a" * 11}, "text-too-long"),
        ({"label": None}, "null-label"),
        ({"label": ""}, "empty-label"),
        ({"label": "NaN"}, "nan-label"),
        ({"label": "-inf"}, "nan-label"),
        ({"label": "Pos"}, "unknown-label"),
        ({"timestamp": "2026-02-30"}, "bad-timestamp"),
        ({"timestamp": "20260131"}, "bad-timestamp"),
        ({"timestamp": "٢٠٢٦-01-31"}, "bad-timestamp"),
        ({"timestamp": None}, "bad-timestamp"),
    ],
)
def test_the_first_broken_rule_names_the_row(change: dict[str, Any], reason: str | None) -> None:
    assert fault({**GOOD, **change}, LIMITS) == reason


def test_without_a_label_set_any_label_but_nan_is_allowed() -> None:
    free = Limits(1, 10, None)
    assert fault({**GOOD, "label": "anything"}, free) is None
    assert fault({**GOOD, "label": "nan"}, free) == "nan-label"
    assert fault({**GOOD, "label": "nan"}, Limits(1, 10, frozenset({"nan"}))) is None, "unless it is one of the labels"


def test_the_second_row_with_an_id_is_turned_away() -> None:
    kept, bad = sift([GOOD, {**GOOD, "line": 2}, {**GOOD, "id": "b", "line": 3}], LIMITS)
    assert [row["line"] for row in kept] == [1, 3]
    assert [(item.reason, item.line) for item in bad] == [("duplicate-id", 2)]


values = st.one_of(st.none(), st.sampled_from(["", "pos", "neg", "nan", "2026-01-01", "x" * 11]), st.text(max_size=12))
rows = st.builds(
    lambda number, text, label, day: {
        "id": str(number),
        "text": text,
        "label": label,
        "timestamp": day,
        "source": "s",
        "line": number,
    },
    st.integers(0, 20),
    values,
    values,
    values,
)


@given(st.lists(rows, max_size=40))
def test_rows_in_are_rows_out_and_quarantined(given_rows: list[dict[str, Any]]) -> None:
    kept, bad = sift(given_rows, LIMITS)
    assert len(kept) + len(bad) == len(given_rows)
    assert sorted(map(repr, [*kept, *(item.row for item in bad)])) == sorted(map(repr, given_rows))
    assert all(fault(row, LIMITS) is None for row in kept)
    assert len({row["id"] for row in kept}) == len(kept)


def test_the_budget_is_the_larger_of_share_and_count() -> None:
    assert (budget(1000, 0.005, 100), budget(100_000, 0.005, 100), budget(0, 0.5, 0)) == (100, 500, 0)
