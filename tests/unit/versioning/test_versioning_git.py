"""Git by subprocess: the source tree of a dirty checkout, clones that carry changes over, clear words when git cannot."""

from __future__ import annotations

import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from autoglm_ops.errors import UsageError
from autoglm_ops.versioning import git


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    root = tmp_path / "checkout"
    root.mkdir()
    git.git(root, "init", "-q", "-b", "main")
    (root / "code.py").write_text("a = 1\n")
    (root / "params.yaml").write_text("seed: 7\n")
    git.commit_all(root, ["code.py", "params.yaml"], "Start")
    return root


def test_a_dirty_checkout_has_the_tree_of_its_files_and_stays_as_it_is(checkout: Path) -> None:
    clean = git.source_tree(checkout)
    (checkout / "code.py").write_text("a = 2\n")
    dirty = git.source_tree(checkout)
    assert dirty != clean and git.changed_files(checkout) == ["code.py"]
    assert git.git(checkout, "stash", "list") == ""
    git.commit_all(checkout, ["code.py"], "Same content")
    assert git.source_tree(checkout) == dirty


def test_a_clone_carries_uncommitted_changes_over_as_its_first_commit(checkout: Path, tmp_path: Path) -> None:
    (checkout / "code.py").write_text("a = 3\n")
    (checkout / "untracked.txt").write_text("mine")
    assert git.clone(checkout, tmp_path / "ws") == ["code.py"]
    assert (tmp_path / "ws/code.py").read_text() == "a = 3\n"
    assert not (tmp_path / "ws/untracked.txt").exists()
    assert "Carry over" in git.git(tmp_path / "ws", "log", "-1", "--format=%s")
    assert git.git(tmp_path / "ws", "status", "--porcelain") == ""
    assert git.source_tree(tmp_path / "ws") == git.source_tree(checkout)


def test_nothing_new_is_no_commit(checkout: Path) -> None:
    head = git.git(checkout, "rev-parse", "HEAD")
    assert git.commit_all(checkout, ["code.py", "absent.txt"], "Nothing") == head


def test_a_branch_is_published_and_again(checkout: Path, tmp_path: Path) -> None:
    git.clone(checkout, tmp_path / "ws")
    for content in ("x", "y"):
        (tmp_path / "ws/code.py").write_text(content)
        head = git.commit_all(tmp_path / "ws", ["code.py"], content)
        git.push_branch(tmp_path / "ws", "runs/abc")
        assert git.git(checkout, "rev-parse", "runs/abc") == head


def test_a_surrounding_repository_is_not_touched(checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hook sets GIT_DIR; the runs of another repository must not land in it."""
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert git.git(checkout, "rev-parse", "--show-toplevel") == str(checkout)


def test_no_git_and_no_checkout_are_said(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="not a git checkout"):
        git.require_checkout(tmp_path)
    (checkout / "inner").mkdir()
    with pytest.raises(UsageError, match="run this at its top"):
        git.require_checkout(checkout / "inner")
    git.require_checkout(checkout)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(UsageError, match="git is not installed"):
        git.require_checkout(checkout)


def test_an_empty_repository_is_said(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    with pytest.raises(UsageError, match="with a commit"):
        git.require_checkout(tmp_path)


def test_a_clone_may_lie_on_another_file_system(tmp_path: Path) -> None:
    places = [place for place in map(Path, ("/dev/shm", "/var/tmp")) if place.stat().st_dev != tmp_path.stat().st_dev]
    assert places, "neither /dev/shm nor /var/tmp is another file system than pytest's own folder; set TMPDIR to one that is"
    origin = tmp_path / "origin"
    origin.mkdir()
    (origin / "a").write_text("1\n")
    git.git(origin, "init", "-q", "-b", "main")
    git.commit_all(origin, ["a"], "Start")
    with TemporaryDirectory(dir=places[0]) as folder:
        git.clone(origin, Path(folder) / "clone")
        assert (Path(folder) / "clone" / "a").read_text() == "1\n"
