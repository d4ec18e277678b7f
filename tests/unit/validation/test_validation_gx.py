"""Great Expectations behind its one door: suites as data, the table first, quiet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from autoglm_ops.errors import SettingsError
from autoglm_ops.validation import gx, page, suite, verdict
from autoglm_ops.validation.suite import Check, Suite

SETTINGS = {"min_chars": 1, "max_chars": 10, "labels": ("pos", "neg")}
HOUSE = Path(__file__).parents[3] / "expectations" / "raw.yaml"
COLUMNS: dict[str, list[Any]] = {
    "id": ["a", "b", "c"],
    "text": ["x", "y", "z"],
    "label": ["pos", "neg", "pos"],
    "timestamp": ["2026-01-01"] * 3,
    "source": ["s"] * 3,
    "line": [1, 2, 3],
}


def house(**settings: Any) -> Suite:
    return suite.parse(yaml.safe_load(HOUSE.read_text()), {**SETTINGS, **settings}, "raw.yaml")


def failed(checks: tuple[Check, ...], **columns: list[Any]) -> list[str]:
    found = gx.run(checks, {**COLUMNS, **columns})
    return [f"{item.name.removeprefix('expect_')}:{item.column}" for item in found if not item.success]


def test_good_rows_meet_the_house_suite_quietly(capfd: pytest.CaptureFixture[str]) -> None:
    assert failed(house().raw) == failed(house().accepted) == []
    assert "".join(capfd.readouterr()) == ""


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        ({"label": ["pos", "neg", "other"]}, ["column_values_to_be_in_set:label"]),
        ({"label": ["pos"] * 3}, ["column_unique_value_count_to_be_between:label"]),
        ({"label": ["pos", "neg", None]}, ["column_values_to_not_be_null:label"]),
        ({"text": ["x", "y", "z" * 11]}, ["column_value_lengths_to_be_between:text"]),
        ({"id": ["a", "a", "c"]}, ["column_values_to_be_unique:id"]),
        ({"timestamp": ["2026-01-01", "soon", "2026-01-01"]}, ["column_values_to_match_regex:timestamp"]),
    ],
)
def test_what_fails_is_named(columns: dict[str, list[Any]], expected: list[str]) -> None:
    assert failed(house().accepted, **columns) == expected


def test_one_text_for_ever_fails_uniqueness() -> None:
    many = {name: values[:1] * 100 for name, values in COLUMNS.items()} | {
        "id": [str(number) for number in range(100)],
        "label": ["pos", "neg"] * 50,
    }
    assert failed(house().accepted, **many) == ["column_proportion_of_unique_values_to_be_between:text"]


def test_zero_rows_are_red_and_stop_there() -> None:
    """Expectations over columns pass on zero rows (threats F02)."""
    found = gx.run(house().raw, {name: [] for name in COLUMNS})
    assert [(item.name, item.success) for item in found] == [
        ("expect_table_row_count_to_be_between", False),
        ("expect_table_columns_to_match_set", True),
    ]


def test_a_missing_or_foreign_column_is_red() -> None:
    assert failed(house().raw, extra=["?"] * 3) == ["table_columns_to_match_set:None"]
    without = {name: values for name, values in COLUMNS.items() if name != "label"}
    assert not gx.run(house().raw, without)[1].success


def test_an_expectation_over_a_column_that_is_not_there_fails_with_words() -> None:
    (item,) = gx.run((Check(type="expect_column_values_to_not_be_null", column="nope"),), COLUMNS)
    assert not item.success
    assert "could not be checked" in item.observed


@pytest.mark.parametrize(
    ("check", "words"),
    [
        (Check(type="expect_miracles"), "not an expectation"),
        (Check(type="expect_column_values_to_not_be_null"), "arguments are refused"),
        (Check(type="expect_column_values_to_not_be_null", column="text", mostly=7), "arguments are refused"),
    ],
)
def test_a_wrong_suite_is_a_settings_error(check: Check, words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        gx.run((check,), COLUMNS)


def test_a_null_setting_asks_for_nothing_and_an_unknown_one_is_an_error() -> None:
    assert len(house(labels=None).accepted) == len(house().accepted) - 1
    tree = {"raw": [{"type": "expect_x", "min_value": {"setting": "nope"}}], "accepted": []}
    with pytest.raises(SettingsError, match="no setting 'nope'"):
        suite.parse(tree, SETTINGS, "raw.yaml")
    with pytest.raises(SettingsError, match=r"raw\.yaml: accepted: Field required"):
        suite.parse({"raw": []}, SETTINGS, "raw.yaml")


def test_the_report_names_what_failed_and_is_safe_to_show() -> None:
    evil = gx.run(house().accepted, {**COLUMNS, "label": ["pos", "neg", "<script>alert(1)</script>"]})
    report = verdict.judge(3, ["bad-json"] * 2, 1, evil)
    assert (report.verdict, report.rows_in) == ("refused", 5)
    assert [reason.split(":")[0] for reason in report.reasons] == ["over-budget", "expectation-failed"]
    shown = page.page(report)
    assert "<script>" not in shown
    assert "&lt;script&gt;" in shown
    assert shown == page.page(report)


def test_within_budget_and_met_is_accepted() -> None:
    report = verdict.judge(10, ["null-text"], 1, ())
    assert (report.verdict, report.reasons, report.quarantined) == ("accepted", (), {"null-text": 1})
