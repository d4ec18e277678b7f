"""Run workspaces: one key for one piece of work, whoever asks and how often."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import pytest

from autoglm_ops.contracts.feedback import PatchSet, SearchSpacePatch
from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.contracts.release import Champion, ModelRef
from autoglm_ops.errors import UsageError
from autoglm_ops.settings import load, load_tree
from autoglm_ops.stages import loop, runs, snapshot
from autoglm_ops.stages.runs import Closed, Request, open_run
from autoglm_ops.versioning import git

ROOT = Path(__file__).parents[3]


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    """A checkout with settings, a pipeline and one source file."""
    root = tmp_path / "origin"
    (root / ".dvc").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", ".gitignore", ".dvc/config"):
        (root / name).write_bytes((ROOT / name).read_bytes())
    (root / "code.py").write_text("a = 1\n")
    git.git(root, "init", "-q", "-b", "main")
    git.commit_all(root, ["."], "Start")
    return root


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def request(name: str = "manual__1", dag: str = "daily_retrain", **more: object) -> Request:
    return Request(dag, name, date(2026, 1, 9), **more)  # type: ignore[arg-type]


def _patch(old: float, new: float) -> SearchSpacePatch:
    return SearchSpacePatch(
        key="train.epochs",
        old=old,
        new=new,
        signal="drift",
        reason="r",
        evidence={},
        created="2026-01-05",
        expires="2026-01-12",
    )


def test_a_new_run_is_a_clone_with_its_inputs_and_settings_committed(origin: Path, home: Path) -> None:
    info = open_run(request(overrides=("train.epochs=1",)), origin, home)
    root = Path(info.workspace)
    assert (info.decision, info.as_of) == ("run", "2026-01-09")
    assert load(root / "params.yaml", environ={}).train.epochs == 1
    assert load(origin / "params.yaml", environ={}).train.epochs != 1, "the user's checkout is not touched"
    assert "inputs/source.json" in git.git(root, "ls-files").split()
    assert git.git(root, "status", "--porcelain", "--untracked-files=no") == ""


def test_the_same_dag_run_keeps_its_key_and_another_trigger_finds_the_unfinished_work(origin: Path, home: Path) -> None:
    first = open_run(request(), origin, home)
    assert open_run(request(), origin, home) == first
    second = open_run(request("manual__2"), origin, home)
    assert (second.run, second.decision) == (first.run, "run") and "continues the unfinished" in second.reason
    assert open_run(request("manual__3", "train_on_demand"), origin, home).run != first.run


@pytest.mark.parametrize("setting", ["release.promote=false", "release.approval=true", "release.name=other"])
def test_a_run_joins_none_of_other_release_settings(origin: Path, home: Path, setting: str) -> None:
    """A backfill and the daily run of the same work at once: whichever is first, the champion moves by the run that may move it."""
    asked = iter(range(4))

    def opened(*overrides: str) -> RunInfo:
        return open_run(request(f"manual__{next(asked)}", overrides=overrides), origin, home)

    first, other = opened(), opened(setting)
    assert (other.run != first.run, other.content_key) == (True, first.content_key)
    assert load(Path(other.workspace) / "params.yaml", environ={}).release != load(origin / "params.yaml", environ={}).release
    assert [opened().run, opened(setting).run] == [first.run, other.run]


def test_once_opened_a_dag_run_keeps_its_key_though_the_checkout_moves_on(origin: Path, home: Path) -> None:
    first = open_run(request(), origin, home)
    (origin / "params.yaml").write_text((origin / "params.yaml").read_text().replace("seed: 7", "seed: 8"))
    assert open_run(request(), origin, home).run == first.run
    moved = open_run(request("manual__2"), origin, home)
    assert moved.run != first.run and "carries uncommitted changes of params.yaml" in moved.reason
    assert load(Path(moved.workspace) / "params.yaml", environ={}).seed == 8


def test_a_finished_run_short_circuits(origin: Path, home: Path) -> None:
    first = open_run(request(), origin, home)
    Closed(run=first.run, commit="c", tag=None).write(Path(first.workspace) / ".closed.json")
    again = open_run(request("manual__2"), origin, home)
    assert (again.run, again.decision) == (first.run, "finished")


def test_a_run_that_could_only_rebuild_the_champion_ends_there(
    origin: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = open_run(request(), origin, home)
    Closed(run=first.run, commit="c", tag=None).write(Path(first.workspace) / ".closed.json")
    champion = Champion(model=ModelRef(name="autoglm", version=3, digest="0" * 64), content_key=first.content_key)
    monkeypatch.setattr(snapshot, "champion", lambda *_: champion)
    again = open_run(request("manual__2"), origin, home)
    assert again.decision == "champion" and "champion v3" in again.reason
    assert not Path(again.workspace).exists()
    more = open_run(request("manual__3", overrides=("train.epochs=1",)), origin, home)
    assert more.decision == "run"


def test_a_switched_off_promotion_is_no_new_model_but_another_day_is(origin: Path, home: Path) -> None:
    first = open_run(request(), origin, home)
    off = open_run(request("manual__2", overrides=("release.promote=false",)), origin, home)
    assert off.content_key == first.content_key
    later = open_run(Request("daily_retrain", "manual__3", date(2026, 1, 10)), origin, home)
    assert later.content_key != first.content_key


def test_a_retune_takes_its_own_number_of_trials(origin: Path, home: Path) -> None:
    info = open_run(request(dag="feedback_retune"), origin, home)
    settings = load(Path(info.workspace) / "params.yaml", environ={})
    assert settings.tune.trials == settings.feedback.trials
    asked = open_run(request("manual__2", "feedback_retune", overrides=("tune.trials=2",)), origin, home)
    assert load(Path(asked.workspace) / "params.yaml", environ={}).tune.trials == 2


def test_racing_openers_make_one_workspace(origin: Path, home: Path) -> None:
    code = (
        "import sys; from datetime import date; from pathlib import Path\n"
        "from autoglm_ops.stages.runs import Request, open_run\n"
        "print(open_run(Request('daily_retrain', sys.argv[3], date(2026, 1, 9)), Path(sys.argv[1]), Path(sys.argv[2])).run)"
    )

    def race(number: int) -> str:
        command = [sys.executable, "-c", code, str(origin), str(home), f"manual__{number}"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with ThreadPoolExecutor(4) as pool:
        keys = set(pool.map(race, range(4)))
    assert len(keys) == 1
    assert [path.name for path in (home / "runs").iterdir() if path.is_dir()] == [keys.pop().strip()]


def test_only_closed_workspaces_are_pruned_and_latest_stay(origin: Path, home: Path) -> None:
    infos = [open_run(Request("daily_retrain", f"m{day}", date(2026, 1, day)), origin, home) for day in (3, 4, 5)]
    for info in infos[:2]:
        Closed(run=info.run, commit="c", tag=None).write(Path(info.workspace) / ".closed.json")
    assert runs.prune(home, 1, dry=True) == [infos[0].run] and Path(infos[0].workspace).exists()
    assert runs.prune(home, 0) == [infos[1].run, infos[0].run]
    assert [info.run for info in runs.listed(home)] == [infos[2].run]


def test_an_unknown_run_is_said(home: Path) -> None:
    for name in ("nothere", "", "../origin"):
        with pytest.raises(UsageError, match="no run"):
            runs.workspace(name, home)


def test_a_patch_of_a_fixed_setting_is_laid_over_params_but_never_over_a_person(origin: Path) -> None:
    epochs = load(origin / "params.yaml", environ={}).train.epochs
    patch = _patch(epochs, epochs + 1)
    tree, sources = load_tree(origin / "params.yaml", environ={})
    loop.apply_fixed(tree, sources, PatchSet(patches=(patch,)))
    assert tree["train"]["epochs"] == epochs + 1 and sources["train.epochs"] == "patch of 2026-01-05"
    tree, sources = load_tree(origin / "params.yaml", environ={"AUTOGLM__TRAIN__EPOCHS": str(epochs)})
    loop.apply_fixed(tree, sources, PatchSet(patches=(patch,)))
    assert tree["train"]["epochs"] == epochs + 1, "an environment that sets the base does not switch the loop off"
    tree, sources = load_tree(origin / "params.yaml", overrides=["train.epochs=9"], environ={})
    loop.apply_fixed(tree, sources, PatchSet(patches=(patch,)))
    assert tree["train"]["epochs"] == 9


def test_a_comparison_takes_no_patch_of_the_loop(origin: Path, home: Path) -> None:
    epochs = load(origin / "params.yaml", environ={}).train.epochs
    loop.history(home).append((_patch(epochs, epochs + 1),))
    trained = {
        patched: load(
            Path(open_run(request(f"n{patched}", patched=patched), origin, home).workspace) / "params.yaml", environ={}
        )
        for patched in (True, False)
    }
    assert {patched: settings.train.epochs for patched, settings in trained.items()} == {True: epochs + 1, False: epochs}
