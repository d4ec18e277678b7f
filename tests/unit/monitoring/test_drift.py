"""Drift, calibrated on the bundled reviews: halves of a day are the same, hotels are not books."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.contracts.feedback import DriftReport, Profile
from autoglm_ops.data.bundled import read
from autoglm_ops.data.rows import Row, Shape
from autoglm_ops.monitoring.drift import drift, profile

PSI, KL, MIN_ROWS = 0.2, 0.1, 200  # params.yaml, section monitor
Day = list[tuple[str, str]]


@pytest.fixture(scope="module")
def days() -> list[Day]:
    """Distinct (text, label) per day, at most 1,200 of each."""
    shape = Shape({name: name for name in ("text", "label", "timestamp", "id", "source")}, date(2026, 1, 1))
    found: dict[str, dict[tuple[str, str], None]] = {}
    for row in read(shape, 14):
        assert isinstance(row, Row)
        found.setdefault(row.timestamp, {})[(row.text or "", row.label or "")] = None
    return [list(found[day]) for day in sorted(found)]


def of(rows: Day) -> Profile:
    return profile([text for text, _ in rows], [label for _, label in rows])


def judge(reference: Profile, current: Profile) -> dict[str, DriftReport]:
    return {report.feature: report for report in drift(reference, current, PSI, KL, MIN_ROWS)}


def halves(days: list[Day], draws: int) -> Iterator[tuple[Profile, Profile]]:
    rng = np.random.default_rng(0)
    for _ in range(draws):
        day = days[rng.integers(len(days))]
        chosen = [day[place] for place in rng.permutation(len(day))[: 2 * MIN_ROWS]]
        yield of(chosen[:MIN_ROWS]), of(chosen[MIN_ROWS:])


def test_two_halves_of_a_day_fire_in_at_most_five_percent_of_draws(days: list[Day]) -> None:
    draws = 200
    alarms = sum(any(report.drifted for report in judge(one, other).values()) for one, other in halves(days, draws))
    assert alarms / draws <= 0.05


def test_hotels_are_not_books_and_more_books_are(days: list[Day]) -> None:
    books = of(days[0] + days[1])
    assert not any(report.drifted for report in judge(books, of(days[2])).values())
    for day in days[3:]:
        found = judge(books, of(day))
        assert found["length"].drifted
        assert found["characters"].drifted
        assert not found["labels"].drifted


def test_a_turn_of_the_labels_is_label_drift_alone() -> None:
    texts = [f"text {number}" for number in range(400)]
    even, turned = profile(texts, ["x", "y"] * 200), profile(texts, ["x"] * 380 + ["y"] * 20)
    assert [name for name, report in judge(even, turned).items() if report.drifted] == ["labels"]
    assert "labels" not in judge(even, profile(texts))


def test_a_small_window_says_nothing() -> None:
    small, large = profile(["a"] * (MIN_ROWS - 1)), profile(["b"] * 1000)
    assert drift(large, small, PSI, KL, MIN_ROWS) == drift(small, large, PSI, KL, MIN_ROWS) == ()
    assert drift(profile([]), profile([]), PSI, KL, 0) == ()


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=40), st.lists(st.text(max_size=40), min_size=1, max_size=40))
def test_any_texts_have_a_finite_drift_and_none_from_themselves(one: list[str], other: list[str]) -> None:
    for report in drift(profile(one), profile(other), PSI, KL, 1):
        assert 0 <= report.value < 100
    assert all(report.value == 0 for report in drift(profile(one), profile(one), PSI, KL, 1))


def test_a_profile_is_the_same_in_every_process() -> None:
    """Pinned: a reference written by one version must be read by the next."""
    found = profile(["书很好", "差"])
    assert [place for place, share in enumerate(found.characters) if share] == [62, 138, 163, 241]
    assert found.length[0] == 1.0
