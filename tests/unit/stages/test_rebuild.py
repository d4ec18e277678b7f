"""A replay: the same when it is the same, and by name what is not; nothing of the run's own work is used, nothing is left."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pytest

from autoglm_ops.contracts.record import Completion
from autoglm_ops.errors import UsageError
from autoglm_ops.stages import runs
from autoglm_ops.stages.rebuild import ReplayedStage, compared, rebuild
from autoglm_ops.versioning import git

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def closed(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """The key of a run that ingested, its checkout and its home."""
    root, home = tmp_path_factory.mktemp("replay") / "checkout", tmp_path_factory.mktemp("home")
    (root / ".dvc").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", ".gitignore", ".dvc/config", "expectations/raw.yaml"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes((ROOT / name).read_bytes())
    lines = [json.dumps({"text": f"text number {n}", "label": "ab"[n % 2], "timestamp": "2026-01-02"}) for n in range(60)]
    (root / "rows.jsonl").write_text("\n".join(lines) + "\n")
    git.git(root, "init", "-q", "-b", "main")
    git.commit_all(root, ["."], "Start")
    info = runs.open_run(runs.Request("daily_retrain", "manual__1", date(2026, 1, 2), ("data.path=rows.jsonl",)), root, home)
    workspace = Path(info.workspace)
    runs.launch(workspace, "ingest")
    git.commit_all(workspace, ["params.yaml", "inputs", "completed"], "Close")
    git.push_branch(workspace, f"runs/{info.run}")
    return info.run, root, home


def test_the_same_commit_makes_the_same_bytes_without_the_runs_own_work(closed: tuple[str, Path, Path]) -> None:
    run, root, home = closed
    away = home.with_name("away")
    (home / "runs").rename(away)  # its own work is neither needed nor looked at
    seen: list[ReplayedStage] = []
    found = rebuild(run, root, home, seen.append)
    away.rename(home / "runs")
    assert found.identical and found.stages == tuple(seen)
    assert [stage.stage for stage in found.stages] == ["ingest"]
    assert all(stage.same >= 2 and not stage.different for stage in found.stages)
    assert not (home / "replays" / run).exists()
    assert git.git(root, "status", "--porcelain", "--untracked-files=no") == ""


def test_what_is_not_the_same_is_named(closed: tuple[str, Path, Path], tmp_path: Path) -> None:
    run, root, home = closed
    git.git(root, "branch", "-f", "runs/altered", f"runs/{run}")
    work = tmp_path / "work"
    git.git(root, "clone", "-q", "--branch", "runs/altered", str(root), str(work))
    path = work / "completed" / "ingest.json"
    before = Completion.read(path)
    [rows] = [name for name in before.outputs if name.endswith("rows.parquet")]
    before.model_copy(update={"outputs": {**before.outputs, rows: "0" * 64}}).write(path)
    git.commit_all(work, ["completed"], "Another digest")
    git.push_branch(work, "runs/altered")
    found = rebuild("altered", root, home, lambda _: None, only=("ingest",))
    assert not found.identical
    assert [(stage.stage, stage.different) for stage in found.stages] == [("ingest", (rows,))]


def test_a_run_that_is_not_there_and_a_stage_that_is_none_are_said(closed: tuple[str, Path, Path]) -> None:
    run, root, home = closed
    with pytest.raises(UsageError, match=f"no closed run 'nothing'.*latest: .*{run}"):
        rebuild("nothing", root, home, lambda _: None)
    with pytest.raises(UsageError, match="unknown stage 'ingets'"):
        rebuild(run, root, home, lambda _: None, only=("ingets",))
    with pytest.raises(UsageError, match="no finished stage"):
        rebuild(run, root, home, lambda _: None, only=("train",))


def test_files_that_came_or_went_are_different() -> None:
    def done(**outputs: str) -> Completion:
        return Completion(stage="s", run="r", attempt=1, started=0, seconds=1, cached=False, exit=0, outputs=outputs)

    found = compared(done(a="1", b="2", c="3"), done(a="1", b="9", d="4"))
    assert (found.same, found.different) == (1, ("b", "c", "d"))
