"""DVC through its one owner: commit, restore from the shared cache in another workspace, and push."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from autoglm_ops.errors import UsageError
from autoglm_ops.versioning import dvc, git

DVC_YAML = """\
stages:
  make:
    cmd: never run by dvc
    deps: [source.txt]
    params: [seed]
    outs: [out/make]
"""


def workspace(folder: Path, home: Path, seed: int = 7) -> Path:
    folder.mkdir()
    git.git(folder, "init", "-q", "-b", "main")
    (folder / ".dvc").mkdir()
    (folder / ".dvc/config").write_text("[core]\n    analytics = false\n")
    (folder / "dvc.yaml").write_text(DVC_YAML)
    (folder / "params.yaml").write_text(f"seed: {seed}\n")
    (folder / "source.txt").write_text("source")
    git.commit_all(folder, [".dvc/config", "dvc.yaml", "params.yaml", "source.txt"], "Start")
    dvc.configure(folder, home)
    return folder


def make(folder: Path, text: str) -> None:
    (folder / "out/make").mkdir(parents=True, exist_ok=True)
    (folder / "out/make/file.txt").write_text(text)


def test_what_one_workspace_made_another_restores(tmp_path: Path) -> None:
    home = tmp_path / "home"
    first = workspace(tmp_path / "first", home)
    with dvc.Pipeline(first) as pipeline:
        assert not pipeline.restore("make")
        make(first, "made")
        pipeline.commit("make")
        assert pipeline.restore("make")
        assert pipeline.push() >= 1
    assert "out/make" in (first / "dvc.lock").read_text()
    second = workspace(tmp_path / "second", home)
    with dvc.Pipeline(second) as pipeline:
        assert pipeline.restore("make")
    assert (second / "out/make/file.txt").read_text() == "made"
    assert (second / "dvc.lock").read_text() == (first / "dvc.lock").read_text()


@pytest.mark.parametrize("what", ["params", "source"])
def test_a_changed_parameter_or_input_is_no_hit(tmp_path: Path, what: str) -> None:
    home = tmp_path / "home"
    first = workspace(tmp_path / "first", home)
    with dvc.Pipeline(first) as pipeline:
        make(first, "made")
        pipeline.commit("make")
    (first / ("params.yaml" if what == "params" else "source.txt")).write_text("seed: 8\n")
    with dvc.Pipeline(first) as pipeline:
        assert not pipeline.restore("make")
    assert not (first / "out/make").exists(), "a stale output must not lie where the next stage looks"


def test_an_altered_output_is_restored_and_a_lost_cache_is_a_miss(tmp_path: Path) -> None:
    home = tmp_path / "home"
    root = workspace(tmp_path / "first", home)
    with dvc.Pipeline(root) as pipeline:
        make(root, "made")
        pipeline.commit("make")
        make(root, "altered by hand")
    with dvc.Pipeline(root) as pipeline:
        assert pipeline.restore("make")
        assert (root / "out/make/file.txt").read_text() == "made"
    shutil.rmtree(home / "dvc/cache")
    shutil.rmtree(root / "out")
    with dvc.Pipeline(root) as pipeline:
        assert not pipeline.restore("make")


def test_a_folder_without_dvc_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a DVC workspace"):
        dvc.Pipeline(tmp_path)
