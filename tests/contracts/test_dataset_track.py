"""A dataset version under DVC: the DVC and git that a person types, on a folder and on a real S3 server."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoglm_ops.contracts.flow import Recipe
from autoglm_ops.data.build.finish import load, verified
from autoglm_ops.data.build.plan import plan
from autoglm_ops.data.build.whole import run
from autoglm_ops.data.readers import Limits
from autoglm_ops.errors import Tampered, UsageError
from autoglm_ops.stages.dataset_track import track
from autoglm_ops.versioning.git import git

DVC = str(Path(sys.executable).with_name("dvc"))


def built(home: Path, *texts: str) -> Path:
    raw = home / "raw" / f"{len(texts)}.jsonl"
    raw.parent.mkdir(parents=True, exist_ok=True)
    raw.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    columns = {name: name for name in ("text", "label", "timestamp", "id", "source")}
    work = plan(str(raw), Recipe(columns=columns, epoch="2026-01-01", dedup=None), home / "scratch", Limits())
    return home / "datasets" / run(work, home / "datasets", Limits(), 1, lambda *_: None).digest


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    git(root, "init", "--quiet")
    dvc(root, "init", "--quiet")
    git(root, "add", ".dvc")
    git(root, "commit", "--quiet", "-m", "Begin")
    return root


def dvc(root: Path, *words: str) -> None:
    done = subprocess.run(
        [DVC, *words], cwd=root, capture_output=True, text=True, check=False, env=os.environ | {"DVC_NO_ANALYTICS": "1"}
    )
    assert done.returncode == 0, done.stderr


def committed(root: Path, folder: Path) -> str:
    pointer = track(folder, "corpus", root)
    git(root, "add", str(pointer), str(pointer.with_name(".gitignore")))
    git(root, "commit", "--quiet", "-m", f"Dataset {folder.name[:16]}")
    return git(root, "rev-parse", "HEAD")


@pytest.fixture(params=[pytest.param("folder", marks=pytest.mark.slow), "s3"])
def remote(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Path], None]:
    def add(root: Path) -> None:
        url = str(tmp_path / "remote") if request.param == "folder" else request.getfixturevalue("s3") + "/dvc"
        dvc(root, "remote", "add", "--default", "kept", url)
        dvc(root, "remote", "modify", "kept", "verify", "true")
        if request.param == "s3":
            dvc(root, "remote", "modify", "kept", "endpointurl", os.environ["AWS_ENDPOINT_URL"])
        git(root, "commit", "--quiet", "-m", "Name the remote", ".dvc/config")  # DVC reads each commit's own

    return add


def test_two_versions_go_to_the_remote_and_come_back_whole(
    checkout: Path, tmp_path: Path, remote: Callable[[Path], None]
) -> None:
    remote(checkout)
    first, second = built(tmp_path, "one", "two"), built(tmp_path, "one", "two", "three")
    before, after = committed(checkout, first), committed(checkout, second)
    dvc(checkout, "push", "--all-commits")
    shutil.rmtree(checkout / ".dvc" / "cache")
    shutil.rmtree(checkout / "inputs" / "datasets" / "corpus")
    dvc(checkout, "pull")
    assert verified(checkout / "inputs" / "datasets" / "corpus", second.name).kept == 3
    git(checkout, "checkout", "--quiet", before)
    dvc(checkout, "pull")
    assert verified(checkout / "inputs" / "datasets" / "corpus", first.name).kept == 2
    git(checkout, "checkout", "--quiet", after)
    dvc(checkout, "checkout")
    assert load(checkout / "inputs" / "datasets" / "corpus").digest == second.name
    assert git(checkout, "status", "--short") == ""


def test_the_same_dataset_has_one_pointer_whoever_built_it(checkout: Path, tmp_path: Path) -> None:
    one, other = built(tmp_path / "a", "one", "two"), built(tmp_path / "b", "one", "two")
    (other / "_built.json").write_text('{"commit": "another"}')
    pointers = [track(folder, "corpus", checkout).read_text() for folder in (one, other)]
    assert pointers[0] == pointers[1]


def test_what_is_no_dataset_is_refused_and_stays(checkout: Path, tmp_path: Path) -> None:
    folder = built(tmp_path, "one")
    taken = checkout / "inputs" / "datasets" / "notes"
    taken.mkdir(parents=True)
    (taken / "mine.txt").write_text("kept")
    with pytest.raises(UsageError, match="is no dataset"):
        track(folder, "notes", checkout)
    assert (taken / "mine.txt").read_text() == "kept"
    with pytest.raises(UsageError, match="cannot name a dataset"):
        track(folder, "../escape", checkout)
    part = next(folder.glob("part-*"))
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(Tampered, match="missing or was changed"):
        track(folder, "corpus", checkout)
