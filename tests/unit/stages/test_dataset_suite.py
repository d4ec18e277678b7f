"""A dataset meets its suite before it is published, or is kept out with a report that says why."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from autoglm_ops.contracts.flow import BuiltDataset, SuiteReport
from autoglm_ops.errors import BadData, SettingsError
from autoglm_ops.settings import Settings
from autoglm_ops.stages import dataset, dataset_suite
from autoglm_ops.validation import gx, page, suite
from autoglm_ops.validation.suite import Check
from autoglm_ops.validation.verdict import judge_documents

HOUSE = Path(__file__).parents[3]
NAMED = {"dataset": "d" * 64, "suite": "suite.yaml", "asked": "a" * 64}
COUNT = Check(type="expect_table_row_count_to_be_between", min_value=1)
Build = Callable[..., tuple[BuiltDataset, Path]]


def settings(**flow: Any) -> Settings:
    return Settings.model_validate({"flow": {"steps": ["normalise"], "dedup": {"enabled": False}, **flow}})


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def build(tmp_path: Path) -> Build:
    def built(rows: list[dict[str, Any]], origin: Path = HOUSE, **given: Any) -> tuple[BuiltDataset, Path]:
        found = settings(**given)
        check = dataset_suite.check(found, origin, tmp_path, str(tmp_path / "raw.jsonl"))
        work = dataset.open_build(found, str(write(tmp_path / "raw.jsonl", rows)), tmp_path, tmp_path)
        made = dataset.build(found, work, dataset.Place(tmp_path, origin, check), 1, lambda *_: None)
        return made, dataset.datasets(tmp_path) / made.digest

    return built


ROWS = [{"text": f"document number {n}", "label": "ab"[n % 2]} for n in range(30)]


def test_what_is_met_is_published_with_its_report(build: Build) -> None:
    made, folder = build(ROWS)
    report = SuiteReport.read(folder / "_validation.json")
    assert (report.verdict, report.dataset, report.rows, report.looked, report.unseen) == ("accepted", made.digest, 30, 30, 0)
    assert len(report.expectations) == len(yaml.safe_load((HOUSE / "expectations/documents.yaml").read_text())["documents"])
    assert "Every document was looked at." in (folder / "_validation.html").read_text()
    assert build(ROWS)[0] == made


def test_what_fails_is_kept_out_and_the_same_build_goes_on_when_the_suite_is_corrected(build: Build, tmp_path: Path) -> None:
    twice = [{**row, "id": f"i{max(place, 1)}"} for place, row in enumerate(ROWS)]
    with pytest.raises(BadData, match=r"expect_column_values_to_be_unique of id.*2 of 30 rows not, such as i1") as caught:
        build(twice)
    assert caught.value.exit_code == 3 and not (tmp_path / "datasets").exists()
    [kept] = (tmp_path / "refused").iterdir()
    assert SuiteReport.read(kept / "_validation.json").verdict == "refused"
    assert "refused" in (kept / "_validation.html").read_text()
    assert (next((tmp_path / "scratch").iterdir()) / "write").exists()
    assert build(twice, suite=None)[0].digest == kept.name


def test_another_suite_is_asked_of_a_dataset_that_is_there(build: Build) -> None:
    unlabelled = [{"text": row["text"]} for row in ROWS]
    _, folder = build(unlabelled, suite=None)
    assert not (folder / "_validation.json").exists()
    build(unlabelled)
    assert SuiteReport.read(folder / "_validation.json").suite == "expectations/documents.yaml"
    with pytest.raises(BadData, match="expect_column_values_to_not_be_null of label"):
        build(unlabelled, suite="expectations/classified.yaml")
    assert SuiteReport.read(folder / "_validation.json").verdict == "accepted", "what was published keeps the report it met"


def test_labelled_rows_meet_the_suite_of_labelled_rows(build: Build, tmp_path: Path) -> None:
    assert build(ROWS, suite="expectations/classified.yaml")[0].kept == 30
    asked = settings(suite="expectations/classified.yaml").model_copy(
        update={"data": Settings.model_validate({"data": {"labels": ["a"]}}).data}
    )
    made, folder = build(ROWS)
    with pytest.raises(BadData, match=r"expect_column_values_to_be_in_set of label: .*15 of 30 rows not, such as b"):
        dataset_suite.check(asked, HOUSE, tmp_path, "raw.jsonl")(made, [folder / part.name for part in made.parts])


def test_conversations_without_an_answer_are_kept_out(build: Build) -> None:
    from autoglm_ops.data.follow.handlers import Chat

    def said(*turns: tuple[str, str]) -> dict[str, Any]:
        messages = [{"role": role, "content": content} for role, content in turns]
        return dict(next(iter(Chat()({"messages": messages}))))

    asks = "expectations/instructions.yaml"
    good = [said(("system", "Be brief."), ("user", f"How many are {n} loaves?"), ("assistant", f"{n}.")) for n in range(20)]
    assert build(good, suite=asks)[0].kept == 20
    for bad in (said(("user", "Who is there?")), said(("user", "Who?"), ("assistant", "  ")), said(("assistant", "I am."))):
        with pytest.raises(BadData, match=r"expect_column_values_to_match_regex of text.*1 of 21 rows not"):
            build([*good, bad], suite=asks)
    with pytest.raises(BadData, match="expect_column_values_to_not_match_regex of text"):
        build([*good, said(("user", "One?"), ("user", "Two?"), ("assistant", "Two."))], suite=asks)


def test_zero_rows_are_red_whatever_the_suite_says() -> None:
    columns: dict[str, list[Any]] = {name: [] for name in ("id", "text", "label", "timestamp", "source", "line")}
    known = {"psi": 0.2, "kl": 0.1}
    whole = suite.parse_documents(yaml.safe_load((HOUSE / "expectations/documents.yaml").read_text()), known, "documents.yaml")
    found = gx.run(whole.documents, columns, rows=0)
    assert [item.success for item in found] == [False, True], "the count and the columns; the rest would pass on zero rows"
    lax = gx.run((Check(type="expect_column_values_to_not_be_null", column="text"),), columns, rows=0)
    assert judge_documents(NAMED, 0, 0, lax).reasons == ("no-rows: there is no document to look at",)


def test_the_count_is_of_all_and_a_sample_says_how_sure_it_is() -> None:
    few = {"text": ["x"] * 100}
    assert not gx.run((Check(type=COUNT.type, max_value=10**9),), few, rows=10**9 + 1)[0].success
    [counted] = gx.run((Check(type=COUNT.type, min_value=10**9),), few, rows=10**9)
    assert counted.success and counted.observed == "1000000000"
    report = judge_documents(NAMED, 10**9, 50_000, (counted,))
    assert report.verdict == "accepted" and report.unseen == pytest.approx(3 / 50_000)
    assert "at 95 % confidence, in less than 0.006% of the documents" in page.documents_page(report)
    # The rule is an upper bound: a fault in that share is missed by a sample of n at most once in twenty.
    assert all((1 - judge_documents(NAMED, 10**9, n, ()).unseen) ** n <= 0.05 for n in (3, 10, 100, 50_000))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("documents: []", "at least 1 item"),
        ("raw: []", "documents: Field required"),
        ("documents: [{type: expect_x, min_value: {setting: nope}}]", "no setting 'nope'"),
        ("documents: [", "is not valid YAML"),
    ],
)
def test_a_wrong_suite_is_said_before_any_work(build: Build, tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "suite.yaml").write_text(text)
    with pytest.raises(SettingsError, match=said):
        build(ROWS, origin=tmp_path, suite="suite.yaml")
    with pytest.raises(SettingsError, match=r"flow\.suite = 'none\.yaml' does not exist"):
        build(ROWS, origin=tmp_path, suite="none.yaml")
    assert not (tmp_path / "scratch").exists()
