"""The trials of a round as Slurm jobs beside each other: launched at once as a scheduler's workers launch mapped tasks, and as one array."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
from away_workspace import ROOT, placed
from on_slurm import command, needs_slurm
from train_workspace import workspace
from two_nodes import cannot, two_nodes

from autoglm_ops.contracts.record import digest_tree
from autoglm_ops.stages import trials
from autoglm_ops.stages.runner import run_stage

pytestmark = needs_slurm


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two nodes: the given one may have a single processor, and then one job at a time."""
    (tmp_path / "slurm").mkdir()
    with two_nodes(tmp_path / "slurm") as conf:
        monkeypatch.setenv("SLURM_CONF", str(conf))
        yield


@pytest.mark.skipif(bool(cannot()), reason=str(cannot()))
def test_the_trials_of_a_round_run_beside_each_other(two: None, tmp_path: Path) -> None:
    root = workspace(tmp_path / "w", tune={"trials": 2, "steps": 12, "parallel": 2, "looks": 2})
    (root / "autoglm_ops").symlink_to(ROOT / "autoglm_ops")
    placed(root, backend="slurm", deadline_seconds=280, slurm={"logs": str(tmp_path / "logs")})
    run_stage("plan", root)
    looks = trials.ask(root)
    seen: list[set[str]] = []
    with ThreadPoolExecutor(2) as pool:
        told = [pool.submit(partial(trials.launch, root, look)) for look in looks]
        while not all(one.done() for one in told):
            names = command("squeue", "--noheader", "--states=RUNNING", "--format=%j").split()
            seen.append({name for name in names if name.startswith("autoglm-trial-")})
            time.sleep(0.1)
    assert [one.result().look for one in told] == list(looks) and len(looks) == 2
    assert all(one.result().score is not None for one in told)
    assert max(map(len, seen)) == 2, "both ran at one moment"
    assert command("squeue", "--noheader") == "", "no job is left"


def test_outside_airflow_a_round_is_one_array_and_the_records_are_those_of_this_machine(tmp_path: Path) -> None:
    """`autoglm stage tune`, as `dvc repro` calls it."""
    tune = {"trials": 3, "steps": 8, "parallel": 3, "strategy": "random"}
    here, away = workspace(tmp_path / "here", tune=tune), workspace(tmp_path / "away", tune=tune)
    (away / "autoglm_ops").symlink_to(ROOT / "autoglm_ops")
    placed(away, backend="slurm", deadline_seconds=280, slots=2, slurm={"logs": str(tmp_path / "logs")})
    for root in (here, away):
        run_stage("plan", root)
    run_stage("tune", here)
    arrays: set[str] = set()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(run_stage, "tune", away)
        while not running.done():
            arrays |= set(command("squeue", "--noheader", "--array", "--format=%F_%K %j").splitlines())
            time.sleep(0.1)
        running.result()
    assert digest_tree(away / "out" / "tune") == digest_tree(here / "out" / "tune")
    assert len({line.partition("_")[0] for line in arrays}) == 1 and len(arrays) == 3, arrays
    assert all("autoglm-trial-array-" in line for line in arrays)
    assert command("squeue", "--noheader") == "", "no job is left"
