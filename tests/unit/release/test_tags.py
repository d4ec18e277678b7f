"""The git tag of a promoted model: annotated, pushed, only forward, and nothing old lost."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from autoglm_ops.errors import UsageError
from autoglm_ops.release import tags

SETTINGS = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *SETTINGS, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


def commit(folder: Path, text: str) -> str:
    (folder / "file").write_text(text)
    git(folder, "add", "file")
    git(folder, "commit", "-q", "-m", text)
    return git(folder, "rev-parse", "HEAD")


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    folder = tmp_path / "origin"
    folder.mkdir()
    git(folder, "init", "-q")
    commit(folder, "first")
    return folder


@pytest.fixture
def clone(origin: Path, tmp_path: Path) -> Path:
    git(tmp_path, "clone", "-q", "--no-tags", str(origin), "clone")
    return tmp_path / "clone"


def test_a_tag_says_its_metrics_and_reaches_the_origin(origin: Path, clone: Path) -> None:
    head = commit(clone, "run")
    assert tags.tag_model(clone, version=3, metrics={"macro_f1": 0.8312345}) == "model/v3"
    for repository in (clone, origin):
        assert git(repository, "cat-file", "-t", "model/v3") == "tag"
        assert git(repository, "rev-parse", "model/v3^{commit}") == head
        assert "macro_f1: 0.831234" in git(repository, "cat-file", "-p", "model/v3")


def test_again_changes_nothing_and_the_close_moves_it_forward(origin: Path, clone: Path) -> None:
    commit(clone, "open")
    tags.tag_model(clone, version=1)
    first = git(origin, "rev-parse", "model/v1")
    tags.tag_model(clone, version=1)
    assert git(origin, "rev-parse", "model/v1") == first
    closed = commit(clone, "close")
    tags.tag_model(clone, version=1, commit=closed)
    assert git(origin, "rev-parse", "model/v1^{commit}") == closed
    assert git(origin, "tag", "--list", "model/old/*") == ""


def test_a_tag_that_could_not_be_pushed_is_pushed_the_next_time(origin: Path, clone: Path) -> None:
    commit(clone, "run")
    tags.tag_model(clone, version=1, push=False)
    assert git(origin, "tag", "--list") == ""
    tags.tag_model(clone, version=1)
    assert git(origin, "tag", "--list") == "model/v1"


def test_a_tag_of_an_earlier_registry_is_kept_under_another_name(origin: Path, clone: Path) -> None:
    old = commit(origin, "an older model's run")
    git(origin, "tag", "-a", "-m", "old", "model/v1", old)
    new = commit(clone, "the new model's run")
    tags.tag_model(clone, version=1)
    assert git(origin, "rev-parse", "model/v1^{commit}") == new
    assert git(origin, "rev-parse", f"model/old/v1-{old[:8]}^{{commit}}") == old


def test_the_same_in_one_repository(origin: Path) -> None:
    old = commit(origin, "old")
    tags.tag_model(origin, version=1, push=False)
    git(origin, "reset", "-q", "--hard", "HEAD~1")
    new = commit(origin, "new")
    tags.tag_model(origin, version=1, push=False)
    assert git(origin, "rev-parse", "model/v1^{commit}") == new
    assert git(origin, "rev-parse", f"model/old/v1-{old[:8]}^{{commit}}") == old


def test_no_repository_is_one_message(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="git rev-parse"):
        tags.tag_model(tmp_path, version=1)
