"""Two DAG runs of the same work meet in one workspace: a stage is computed once, and whoever came second has its record."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import date
from pathlib import Path

import pytest

from autoglm_ops.contracts.record import Completion, StageRecord
from autoglm_ops.stages import away, runner, runs
from autoglm_ops.stages.runs import Request, StageFailedError, open_run
from autoglm_ops.versioning import git

ROOT = Path(__file__).parents[2]
SLOW_INGEST = """
import json, os, sys, time
from pathlib import Path
from autoglm_ops.contracts.record import Completion, StageRecord
from autoglm_ops.stages import runner, runs

def by(root, name):
    with open(root.parent / "computed", "a") as told:
        told.write("in ")
    out = root / "out" / name
    out.mkdir(parents=True)                    # whoever is here beside another fails
    time.sleep(1)
    inputs = runner.check_inputs(runs.graph.find(name), root)
    StageRecord(stage=name, reasons=(), inputs=inputs, outputs={}, facts={}).write(out / "record.json")
    done = Completion(stage=name, run=root.name, attempt=1, started=0, seconds=1, cached=False, exit=0, inputs=inputs, outputs={})
    done.write(runner.completion_path(root, name))
    return done

print(runs.execute(sys.argv[1], "ingest", Path(sys.argv[2]), by=by).model_dump_json())
"""


def made(root: Path, name: str) -> Completion:
    """A stage that works."""
    out, inputs = root / "out" / name, runner.check_inputs(runs.graph.find(name), root)
    out.mkdir(parents=True)
    StageRecord(stage=name, reasons=("made",), inputs=inputs, outputs={}, facts={}).write(out / "record.json")
    done = Completion(stage=name, run=root.name, attempt=1, started=0, seconds=1, cached=False, exit=0, inputs=inputs)
    done.write(runner.completion_path(root, name))
    return done


def lost(root: Path, name: str) -> Completion:
    """One whose pod was lost."""
    away.unfinished(root, name, 75, ("lost: its node burned down",), started=0, attempt=1)
    raise StageFailedError("lost", 75)


@pytest.fixture
def opened(tmp_path: Path) -> tuple[str, Path]:
    git.clone(ROOT, tmp_path / "origin")
    info = open_run(Request("daily_retrain", "scheduled__1", date(2026, 1, 14)), tmp_path / "origin", tmp_path / "home")
    other = open_run(Request("daily_retrain", "manual__2", date(2026, 1, 15)), tmp_path / "origin", tmp_path / "home")
    assert other.run == info.run, "the last day of data is the 14th"
    return info.run, tmp_path / "home"


def test_a_stage_that_is_run_at_once_is_computed_once(opened: tuple[str, Path]) -> None:
    run, home = opened
    command = [sys.executable, "-c", SLOW_INGEST, run, str(home)]
    at_once = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(3)]
    said = [child.communicate(timeout=120) for child in at_once]
    assert [child.returncode for child in at_once] == [0, 0, 0], said
    assert len({json.dumps(json.loads(out), sort_keys=True) for out, _ in said}) == 1
    assert (home / "runs" / "computed").read_text() == "in "
    runs.close_run(run, home)  # nothing holds it


def test_a_stage_that_failed_here_and_was_made_elsewhere_is_done(opened: tuple[str, Path]) -> None:
    """Its output came out of the cache, and the record of the attempt that failed had refused it for good."""
    (run, home), origin = opened, opened[1].parent / "origin"
    other = open_run(Request("train_on_demand", "manual__1", date(2026, 1, 14)), origin, home).run
    with pytest.raises(StageFailedError):
        runs.execute(run, "ingest", home, by=lost)
    assert not runs.execute(other, "ingest", home, by=made).cached
    done = runs.execute(run, "ingest", home, by=lost)
    assert (done.exit, done.cached, done.attempt, done.reasons) == (0, True, 2, ("made",))
    assert runs.execute(run, "ingest", home, by=lost) == done == runner.require("ingest", home / "runs" / run)
