"""From answers to the report: same rows for all, slices, label sets that differ."""

from __future__ import annotations

import pytest

from autoglm_ops.errors import UsageError
from autoglm_ops.evaluation.assess import Answers, Method, Sizes, assess, flat_metrics

METHOD = Method("macro_f1", 300, 7)
TRUTH = ["neg", "pos"] * 60


def answers(champion: list[str] | None = None, candidate: list[str] | None = None) -> Answers:
    texts = ["x" * (10 if row % 3 else 300) for row in range(len(TRUTH))]
    days = ["2026-01-01" if row < 40 else "2026-01-02" for row in range(len(TRUTH))]
    majority, tfidf = ["neg"] * len(TRUTH), TRUTH[:100] + ["neg"] * 20
    return Answers(texts, days, TRUTH, candidate or TRUTH, champion, majority, tfidf)


def test_without_a_champion_nothing_is_said_of_one() -> None:
    report = assess(answers(), METHOD, Sizes(10))
    assert report.champion is report.against_champion is report.p_value_champion is report.champion_bytes is None
    assert all(part.champion is None and part.difference is None for part in report.slices)
    assert not any("champion" in name or "gain" in name for name in flat_metrics(report, answers()))


def test_a_champion_with_other_labels_is_compared_by_name() -> None:
    report = assess(answers(champion=["good", "pos"] * 60), METHOD, Sizes(10, 20))
    assert report.champion is not None
    assert report.champion.estimate == pytest.approx(0.5)
    assert report.against_champion is not None
    assert report.against_champion.low > 0
    assert report.confusion["neg"] == {"good": 0, "neg": 60, "pos": 0}


def test_slices_cover_the_rows_once_per_kind() -> None:
    report = assess(answers(champion=["neg"] * len(TRUTH)), METHOD, Sizes(10, 20))
    rows: dict[str, int] = {}
    for part in report.slices:
        kind = part.name.partition("=")[0]
        rows[kind] = rows.get(kind, 0) + part.rows
    assert rows == {"day": 120, "label": 120, "length": 120}
    recall = {part.name: part.champion for part in report.slices}
    assert (recall["label=neg"], recall["label=pos"]) == (1.0, 0.0)


def test_flat_metrics_are_the_report_in_numbers() -> None:
    given = answers(champion=["neg"] * len(TRUTH))
    report = assess(given, METHOD, Sizes(10, 20))
    numbers = flat_metrics(report, given)
    assert numbers["candidate_macro_f1"] == report.candidate.estimate == 1.0
    assert numbers["tfidf_macro_f1"] == pytest.approx(report.baselines["tfidf"].estimate)
    assert report.against_champion is not None
    assert numbers["gain"] == pytest.approx(report.against_champion.estimate)


def test_no_rows_are_refused() -> None:
    with pytest.raises(UsageError, match="no rows to compare on"):
        assess(Answers([], [], [], [], None, [], []), METHOD, Sizes(1))
