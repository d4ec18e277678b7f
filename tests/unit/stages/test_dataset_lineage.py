"""From a dataset to the commit that built it, and to the runs and models that were trained on it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from autoglm_ops.contracts.flow import BuiltDataset
from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.data import source
from autoglm_ops.settings import Settings
from autoglm_ops.stages import dataset, dataset_lineage
from autoglm_ops.versioning import git


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    git.git(root, "init", "-q", "-b", "main")
    (root / "code.py").write_text("one")
    git.commit_all(root, ["code.py"], "Start")
    return root


def build(home: Path, origin: Path, rows: int = 9) -> tuple[BuiltDataset, Path]:
    raw = home / f"raw{rows}.jsonl"
    raw.write_text("".join(json.dumps({"text": f"document {n}", "label": "ab"[n % 2]}) + "\n" for n in range(rows)))
    settings = Settings.model_validate({"flow": {"steps": [], "dedup": {"enabled": False}, "suite": None, "shard_mb": 1}})
    work = dataset.open_build(settings, str(raw), home, home)
    made = dataset.build(settings, work, dataset.Place(home, origin, lambda *_: {}), 1, lambda *_: None)
    return made, dataset.datasets(home) / made.digest


def run_on(folder: Path | None, home: Path, name: str) -> Path:
    """A workspace whose snapshot took `folder`'s files."""
    root = home / "runs" / name
    source.manifest(folder).write(root / "inputs" / "source.json")
    info = {
        "run": name,
        "workspace": str(root),
        "dag": "d",
        "dag_run_id": "r",
        "decision": "run",
        "reason": "",
        "as_of": "2026-01-01",
    }
    RunInfo.model_validate({**info, "content_key": "", "opened": 1.0}).write(root / "inputs" / "run.json")
    return root


def test_a_dataset_knows_the_commit_that_built_it_first(checkout: Path, tmp_path: Path) -> None:
    made, folder = build(tmp_path, checkout)
    first = dataset_lineage.provenance(folder)
    assert first and (first.commit, first.changed) == (git.git(checkout, "rev-parse", "HEAD"), False)
    assert first.location == str(tmp_path / "raw9.jsonl")
    (checkout / "code.py").write_text("two")
    (folder / "_built.json").unlink()
    assert build(tmp_path, checkout)[0] == made
    changed = dataset_lineage.provenance(folder)
    assert changed and changed.changed
    git.commit_all(checkout, ["code.py"], "Two")
    build(tmp_path, checkout)
    assert dataset_lineage.provenance(folder) == changed, "the first one stays"
    assert made.digest not in changed.to_json() and str(tmp_path) not in made.to_json()


def test_without_a_checkout_there_is_no_commit_and_no_run(tmp_path: Path) -> None:
    made, folder = build(tmp_path, tmp_path)
    found = dataset_lineage.provenance(folder)
    assert found and (found.commit, found.changed) == (None, False)
    assert dataset_lineage.trained(made, tmp_path, tmp_path) == []


def test_runs_on_all_of_its_parts_are_found_also_when_their_workspace_is_gone(checkout: Path, tmp_path: Path) -> None:
    made, folder = build(tmp_path, checkout)
    _, other = build(tmp_path, checkout, rows=7)
    run_on(folder, tmp_path, "open")
    run_on(other, tmp_path, "other")
    root = run_on(folder, tmp_path, "gone")
    git.git(root, "init", "-q")
    commit = git.commit_all(root, ["inputs"], "Close run gone")
    git.git(root, "remote", "add", "origin", str(checkout))
    git.push_branch(root, "runs/gone")
    git.git(checkout, "tag", "model/v3", commit)
    shutil.rmtree(root)
    assert dataset_lineage.trained(made, tmp_path, checkout) == [("gone", "model/v3"), ("open", None)]


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("https://user:secret@host/a/b.jsonl?key=secret#secret", "https://host/a/b.jsonl"),
        ("s3://bucket/raw", "s3://bucket/raw"),
        ("/data/what?.jsonl", "/data/what?.jsonl"),
    ],
)
def test_a_location_is_noted_without_secrets(given: str, shown: str) -> None:
    assert dataset_lineage.public(given) == shown
