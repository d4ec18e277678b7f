"""ingest, validate, prepare, tokenize as the runner runs them: the bundled dataset, the user's own, and every kind of bad one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoglm_ops.contracts.arrays import TokenArrays, TokenMeta
from autoglm_ops.contracts.data import SPLITS, DatasetVersion, ValidationReport
from autoglm_ops.contracts.feedback import FeedbackSnapshot
from autoglm_ops.contracts.inputs import AsOf
from autoglm_ops.contracts.record import Completion, digest_path
from autoglm_ops.data.source import manifest
from autoglm_ops.data.tables import read_rows, read_samples
from autoglm_ops.errors import BadData, Tampered
from autoglm_ops.settings import load
from autoglm_ops.settings.layers import parse_yaml
from autoglm_ops.stages import folders
from autoglm_ops.stages.runner import run_stage

REPO = Path(__file__).parents[2]
STAGES = ("ingest", "validate", "prepare", "tokenize")
Make = Callable[..., Path]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """A checkout with params.yaml changed by `settings`, and the inputs that a snapshot would have written."""
    monkeypatch.delenv("AUTOGLM_HOME", raising=False)

    def make(*, as_of: str = "2026-01-14", name: str = "ws", **settings: Any) -> Path:
        root = tmp_path / name
        shutil.copytree(REPO / "expectations", root / "expectations", dirs_exist_ok=True)
        tree = parse_yaml((REPO / "params.yaml").read_text(), "params.yaml")
        for key, value in settings.items():
            section, _, leaf = key.partition("__")
            tree[section][leaf] = value
        (root / "params.yaml").write_text(json.dumps(tree, default=str))
        path = tree["data"]["path"]
        manifest(root / path if path else None).write(root / "inputs" / "source.json")
        AsOf(day=as_of).write(root / "inputs" / "as_of.json")
        FeedbackSnapshot().write(root / "inputs" / "feedback.json")
        folders.look(load(root / "params.yaml", environ={}), root).write(root / "inputs" / "folders.json")
        return root

    return make


def rows(count: int = 60, **change: Any) -> list[dict[str, Any]]:
    return [{"text": f"review {number} is fine", "label": ("pos", "neg")[number % 2], **change} for number in range(count)]


def jsonl(path: Path, records: list[dict[str, Any]]) -> str:
    """Write `records` into a checkout and return what data.path calls them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path.name


def run(root: Path, *stages: str) -> dict[str, Completion]:
    return {stage: run_stage(stage, root) for stage in stages or STAGES}


def test_the_bundled_dataset_goes_through(workspace: Make) -> None:
    root = workspace()
    run(root)
    report = ValidationReport.read(root / "out/validate/report.json")
    assert (report.rows_in, report.rows_out, report.quarantined) == (35_124, 35_123, {"empty-text": 1})
    version = DatasetVersion.read(root / "out/prepare/dataset.json")
    assert sum(version.rows.values()) + sum(version.dropped.values()) == report.rows_out
    assert version.gate_days == ("2026-01-12", "2026-01-13", "2026-01-14")
    meta = TokenMeta.read(root / "out/tokenize/meta.json")
    for split in SPLITS:
        arrays = TokenArrays.open(root / "out/tokenize", split)
        assert len(arrays) == meta.rows[split] == version.rows[split]
        assert int(arrays.tokens.max()) < meta.vocabulary
        labels = [row.label for row in read_samples(root / f"out/prepare/{split}.parquet")]
        assert [meta.labels[number] for number in arrays.labels] == labels
    train = TokenArrays.open(root / "out/tokenize", "train")
    assert meta.mean_length - 1 < len(train.tokens) / len(train) <= meta.mean_length
    written = "".join(path.read_text() for path in (root / "out").rglob("*.json"))
    assert str(root) not in written


def test_the_same_inputs_give_the_same_bytes(workspace: Make, tmp_path: Path) -> None:
    for name in ("one", "two"):
        jsonl(tmp_path / name / "mine.jsonl", rows(300))
    one, two = (run(workspace(name=name, data__path="mine.jsonl")) for name in ("one", "two"))
    assert [done.outputs for done in one.values()] == [done.outputs for done in two.values()]


def test_no_row_is_later_than_the_day_of_the_run(workspace: Make) -> None:
    root = workspace(as_of="2026-01-05")
    done = run(root, "ingest", "validate", "prepare")
    assert max(row.timestamp for row in read_rows(root / "out/ingest/rows.parquet")) == "2026-01-05"
    assert done["ingest"].facts["rows"] + done["ingest"].facts["later"] == 35_124
    assert DatasetVersion.read(root / "out/prepare/dataset.json").gate_days == ("2026-01-03", "2026-01-04", "2026-01-05")


def test_labels_after_labelled_until_come_back_as_feedback_only(workspace: Make) -> None:
    from autoglm_ops.store import open_store

    root = workspace(as_of="2026-01-05", data__labelled_until="2026-01-02")
    label = {"id": "f1", "text": "returned by production", "label": "pos", "timestamp": "2026-01-05", "source": "api"}
    folder = root / "returned"
    folder.mkdir()
    late = {**label, "id": "f2", "timestamp": "2026-01-06"}
    (folder / "labels.jsonl").write_text("".join(json.dumps(item) + "\n" for item in (label, late)))
    digest = open_store(None, root / ".autoglm").put(folder)
    FeedbackSnapshot(digest=digest, rows=2, until="2026-01-06").write(root / "inputs" / "feedback.json")
    done = run(root, "ingest")["ingest"]
    found = read_rows(root / "out/ingest/rows.parquet")
    assert max(row.timestamp for row in found if row.source != "api") == "2026-01-02"
    assert [row.id for row in found if row.source == "api"] == ["f1"]
    assert done.facts["feedback_rows"] == 1
    assert not list((root / ".autoglm" / "scratch").rglob("labels.jsonl"))


def test_labels_that_acts_imply_reach_training_with_their_weight_and_judge_nobody(workspace: Make) -> None:
    from autoglm_ops.store import open_store

    root = workspace(as_of="2026-01-03", data__labelled_until="2026-01-02")
    said = [
        {
            "id": f"said-{n}",
            "text": f"returned by production {n}",
            "label": "pos",
            "timestamp": "2026-01-03",
            "source": "feedback:implied",
        }
        for n in range(40)
    ]
    (root / "returned").mkdir()
    lines = [json.dumps({**item, "weight": 0.5} if n % 2 else item) + "\n" for n, item in enumerate(said)]
    (root / "returned" / "labels.jsonl").write_text("".join(lines))
    digest = open_store(None, root / ".autoglm").put(root / "returned")
    FeedbackSnapshot(digest=digest, rows=40, until="2026-01-03").write(root / "inputs" / "feedback.json")
    run(root, "ingest", "validate", "prepare", "tokenize")
    weighed = {row.id: row.weight for row in read_samples(root / "out/prepare/train.parquet") if row.id.startswith("said-")}
    assert set(weighed.values()) == {0.5, 1.0}
    assert all((weight == 0.5) == bool(int(key[5:]) % 2) for key, weight in weighed.items())
    judges = {row.id for part in ("validation", "gate") for row in read_samples(root / f"out/prepare/{part}.parquet")}
    assert not judges & {f"said-{n}" for n in range(1, 40, 2)}
    arrays = TokenArrays.open(root / "out/tokenize", "train")
    assert arrays.weights is not None and len(set(arrays.weights.tolist())) == 2
    dropped = DatasetVersion.read(root / "out/prepare/dataset.json").dropped
    assert dropped["weak-label"] + sum(weight == 0.5 for weight in weighed.values()) == 20 - dropped.get("held-out-earlier", 0)


def test_own_data_with_own_columns_goes_through(workspace: Make, tmp_path: Path) -> None:
    records = [
        {"review": row["text"], "stars": number % 3, "when": f"2026-03-0{1 + number % 4}"}
        for number, row in enumerate(rows(300))
    ]
    path = jsonl(tmp_path / "ws" / "mine.jsonl", records)
    columns = {"text": "review", "label": "stars", "timestamp": "when", "id": "id", "source": "source"}
    root = workspace(as_of="2026-03-04", data__path=path, data__columns=columns)
    run(root)
    assert TokenMeta.read(root / "out/tokenize/meta.json").labels == ("0", "1", "2")


def test_a_given_tokenizer_is_used_and_its_digest_recorded(workspace: Make, tmp_path: Path) -> None:
    from autoglm_ops.data import tokenizer

    place = tmp_path / "ws"
    path = jsonl(place / "mine.jsonl", rows(300))
    tokenizer.save(tokenizer.train(["review is fine 0123456789"] * 2, 64, 3), place / "tok", 32)
    root = workspace(data__path=path, tokenize__tokenizer="tok")
    facts = run(root)["tokenize"].facts
    assert facts["trained"] is False
    assert facts["tokenizer"] == digest_path(root / "out/tokenize/tokenizer") == digest_path(place / "tok")
    with (place / "tok" / "tokenizer_config.json").open("a") as file:
        file.write("\n")
    with pytest.raises(Tampered, match=r"the folder of tokenize.tokenizer, tok, has changed since"):
        run(root, "tokenize")
    folders.look(load(root / "params.yaml", environ={}), root).write(root / "inputs" / "folders.json")
    run(root, "tokenize")


def test_data_that_changes_after_the_snapshot_is_refused(workspace: Make, tmp_path: Path) -> None:
    path = jsonl(tmp_path / "ws" / "mine.jsonl", rows())
    root = workspace(data__path=path)
    (root / path).write_text("{}\n")
    with pytest.raises(Tampered, match=r"mine\.jsonl has changed"):
        run(root, "ingest")
    assert not (root / "out" / "ingest").exists()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("records", "settings", "reason"),
    [
        (rows(label="pos"), {}, "expectation-failed: expect_column_unique_value_count_to_be_between of label"),
        (
            rows(label="maybe"),
            {"data__labels": ["pos", "neg"], "validation__budget_rows": 3},
            "over-budget: 60 rows are bad (unknown-label 60)",
        ),
        ([*rows(label=None), *rows(2)], {}, "expectation-failed: expect_column_values_to_not_be_null of label"),
        ([*rows(), *rows(4, label="NaN")], {"validation__budget_rows": 3}, "over-budget: 4 rows are bad (nan-label 4)"),
        (
            [*rows(), *rows(4, timestamp="soon")],
            {"validation__budget_rows": 3},
            "over-budget: 4 rows are bad (bad-timestamp 4)",
        ),
        ([*rows(), *rows(4, text=" ")], {"validation__budget_rows": 3}, "over-budget: 4 rows are bad (empty-text 4)"),
        ([*rows(), *rows(4, text=7)], {"validation__budget_rows": 3}, "over-budget: 4 rows are bad (wrong-type 4)"),
        (rows(2, text=None), {}, "expectation-failed: expect_table_row_count_to_be_between"),
    ],
    ids=["one-class", "wrong-label", "null-label", "nan-label", "bad-timestamp", "empty-text", "wrong-type", "zero-rows"],
)
def test_refused_data_leaves_a_report_and_nothing_to_go_on_with(
    records: list[dict[str, Any]], settings: dict[str, Any], reason: str, workspace: Make, tmp_path: Path
) -> None:
    path = jsonl(tmp_path / "ws" / "mine.jsonl", records)
    root = workspace(data__path=path, **settings)
    run(root, "ingest")
    with pytest.raises(BadData) as refusal:
        run(root, "validate")
    assert refusal.value.exit_code == 3
    assert any(item.startswith(reason) for item in refusal.value.reasons), refusal.value.reasons
    report = ValidationReport.read(root / "refused/validate/report.json")
    quarantined = (root / "refused/validate/quarantine.jsonl").read_text().splitlines()
    assert report.verdict == "refused"
    assert report.rows_in == len(records) == report.rows_out + len(quarantined)
    assert reason.split(":")[0] in (root / "refused/validate/report.html").read_text()
    assert not (root / "out" / "validate").exists()
    assert Completion.read(root / "completed/validate.json").exit == 3


def test_bad_rows_within_the_budget_are_kept_aside_with_reason_and_line(workspace: Make, tmp_path: Path) -> None:
    place = tmp_path / "ws" / "mine.jsonl"
    path = jsonl(place, [*rows(80), {"text": None, "label": "pos"}])
    place.write_bytes(place.read_bytes() + b'{"text": "\xff", "label": "pos"}\n{"text": "torn", "la')
    root = workspace(data__path=path)
    facts = run(root, "ingest", "validate")["ingest"].facts
    assert facts["truncated_files"] == ["mine.jsonl"]
    found = [json.loads(line) for line in (root / "out/validate/quarantine.jsonl").read_text().splitlines()]
    assert [(item["reason"], item["line"]) for item in found] == [("null-text", 81), ("bad-utf8", 82), ("truncated", 83)]
    report = ValidationReport.read(root / "out/validate/report.json")
    assert (report.rows_in, report.rows_out) == (83, 80)


@pytest.mark.parametrize(
    ("content", "words"),
    [(b"", "is empty"), (b'{"review": "a"}\n', "none of its 1 objects"), (b"\xef\xbb\xbf{}\n", "byte order mark")],
)
def test_a_file_that_is_wrong_as_a_whole_ends_ingest(content: bytes, words: str, workspace: Make, tmp_path: Path) -> None:
    place = tmp_path / "ws" / "mine.jsonl"
    place.parent.mkdir()
    place.write_bytes(content)
    root = workspace(data__path="mine.jsonl")
    with pytest.raises(BadData, match=words):
        run(root, "ingest")
    assert not (root / "out" / "ingest").exists()
    assert Completion.read(root / "completed/ingest.json").exit == 3


def test_a_day_before_all_data_is_refused(workspace: Make) -> None:
    with pytest.raises(BadData, match="no rows on or before 2025-12-31"):
        run(workspace(as_of="2025-12-31"), "ingest")
