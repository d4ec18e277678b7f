"""`autoglm data …` as a person and as a machine call it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from data_calls import TEXT, call, checkout


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    checkout(tmp_path, monkeypatch)
    lines = [json.dumps({"text": TEXT.format(number, number * 7919), "label": "ab"[number % 2]}) for number in range(60)]
    (tmp_path / "raw.jsonl").write_text("\n".join([*lines, lines[0], "{"]) + "\n")
    return tmp_path


def test_built_task_by_task_is_built_whole(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = str(place / "raw.jsonl")
    whole = json.loads(call(capsys, "build", raw, "--jobs", "1", "--json"))
    assert (whole["seen"], whole["kept"], whole["dropped"], whole["quarantined"]) == (62, 60, {"duplicate": 1}, {"bad-json": 1})
    work = json.loads(call(capsys, "plan", raw, "--json"))["work"]
    assert json.loads(call(capsys, "numbers", work, "read", "--json"))["numbers"] == []  # it is finished
    shutil.rmtree(place / "home" / "datasets")
    for phase in ("read", "match", "verify", "settle", "weigh", "write"):
        for number in json.loads(call(capsys, "numbers", work, phase, "--json"))["numbers"]:
            call(capsys, "task", work, phase, str(number))
    assert json.loads(call(capsys, "task", work, "finish", "--json"))["digest"] == whole["digest"]
    assert json.loads(call(capsys, "task", work, "finish", "--json"))["digest"] == whole["digest"]  # a retry
    assert "no build is called" in call(capsys, "task", "build-0", "finish", code=2)
    assert whole["digest"][:16] in call(capsys, "list")


def test_two_datasets_are_compared(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw = place / "raw.jsonl"
    first = json.loads(call(capsys, "build", str(raw), "--jobs", "1", "--json"))["digest"]
    with raw.open("a") as file:
        file.write(json.dumps({"text": "a new document that was never there before, about ships", "label": "c"}) + "\n")
    second = json.loads(call(capsys, "build", str(raw), "--jobs", "1", "--json"))["digest"]
    found = json.loads(call(capsys, "diff", first[:12], second[:12], "--json"))
    assert (found["common"], found["removed"], found["added"]) == (60, 0, 1) and found["labels"]["c"] == [0, 1]
    assert "60 in both, 0 gone, 1 new" in call(capsys, "diff", first, second)
    assert "no dataset begin with" in call(capsys, "diff", "ffff0000", second, code=2)


def test_a_version_is_shown_pushed_and_pulled_on_another_machine(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM__STORE__URI", str(place / "store"))
    digest = json.loads(call(capsys, "build", str(place / "raw.jsonl"), "--jobs", "1", "--json"))["digest"]
    said = call(capsys, "show", digest[:10])
    assert "60 of 62, in 1 parts" in said and "accepted by expectations/documents.yaml" in said
    assert f"from {place / 'raw.jsonl'} by autoglm" in said and "no run that is known here" in said
    assert json.loads(call(capsys, "list", "--where", "--json"))[0]["stored"] is False
    assert digest in call(capsys, "push", digest[:10])
    assert "here, store" in call(capsys, "list", "--where")
    monkeypatch.setenv("AUTOGLM_HOME", str(place / "elsewhere"))
    pulled = json.loads(call(capsys, "pull", digest, "--json"))
    assert Path(pulled["path"]) == place / "elsewhere" / "datasets" / digest
    shown = json.loads(call(capsys, "show", digest, "--json"))
    assert shown["dataset"]["digest"] == digest and shown["validation"]["looked"] == 60 and shown["trained"] == []
    assert "not a digest" in call(capsys, "pull", digest[:10], code=2)
    assert "knows no dataset" in call(capsys, "pull", "0" * 64, code=3)


def test_a_refused_dataset_ends_with_3_and_the_place_of_its_report(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    wrong = ("build", str(place / "raw.jsonl"), "--jobs", "1", "--set", "flow.suite=expectations/classified.yaml")
    said = call(capsys, *wrong, "--set", "data.labels=[a]", code=3)
    [report] = (place / "home" / "refused").glob("*/_validation.html")
    assert "expect_column_values_to_be_in_set of label" in said and str(report) in said
    assert "no datasets yet" in call(capsys, "list")


def test_a_profile_says_what_is_there(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    page = place / "profile.html"
    found = json.loads(call(capsys, "profile", str(place / "raw.jsonl"), "--html", str(page), "--json"))
    assert (found["rows"], found["repeated"], found["rejected"], found["labels"]) == (
        61,
        1,
        {"bad-json": 1},
        {"a": 31, "b": 30},
    )
    assert found["languages"]["en"] == found["sample"] == 60
    assert "<td>en</td>" in page.read_text() and "http" not in page.read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("build",), 2, "flow.location"),
        (("build", "nowhere.jsonl"), 3, "nowhere.jsonl"),
        (("build", "ftp://host/x.jsonl"), 2, "unknown data location 'ftp'"),
        (("build", "https://example.org/x.jsonl"), 3, "list of allowed hosts"),
        (("build", "raw.jsonl", "--set", "flow.steps=[normalize]"), 2, "did you mean 'normalise'"),
        (("build", "raw.jsonl", "--set", "flow.dedup.threshold=7"), 2, "flow.dedup.threshold"),
    ],
)
def test_what_is_wrong_is_said_in_one_message(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, said: str
) -> None:
    message = call(capsys, *arguments, code=code)
    assert said in message and "Traceback" not in message
