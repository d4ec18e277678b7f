"""The README's promises on a clone: a user's own dataset through the whole cycle, killed, gone on with, repeated, rebuilt by DVC."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow_rest import free_port
from newcomer import Checkout, make_checkout

from autoglm_ops.contracts.record import digest_tree
from autoglm_ops.versioning import git


@pytest.fixture(scope="module")
def cycle(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Checkout]:
    """A checkout whose first `autoglm run` was killed after it had prepared its data, and was started again."""
    checkout = make_checkout(tmp_path_factory.mktemp("cycle") / "checkout")
    child = checkout.start("run")
    deadline = time.monotonic() + 300
    while not list(checkout.home.glob("runs/*/completed/tokenize.json")):
        assert child.poll() is None and time.monotonic() < deadline, child.communicate()
        time.sleep(0.2)
    _kill_tree(child.pid)
    child.wait()
    yield checkout


def _kill_tree(pid: int) -> None:
    """SIGKILL to the process and all its descendants: what a power cut leaves."""
    for path in Path(f"/proc/{pid}/task").glob("*/children"):
        for other in path.read_text().split():
            _kill_tree(int(other))
    os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def finished(cycle: Checkout) -> str:
    return cycle.call("run")


def workspace(checkout: Checkout) -> Path:
    """The one run there is."""
    [found] = [path.parent for path in checkout.home.glob("runs/*/.workspace.json")]
    return found


def test_a_killed_run_finishes_its_own_work(cycle: Checkout, finished: str) -> None:
    assert "continues the unfinished run" in finished
    summary = json.loads((cycle.home / "latest/summary.json").read_text())
    assert summary["run"] == workspace(cycle).name
    assert set(summary) == {"run", "dataset", "validation", "tuning", "training", "evaluation", "gate", "release", "seconds"}
    assert summary["tuning"]["trials"] == 2 and summary["training"]["ranks"] >= 1 and summary["dataset"]["quarantined"] == 0
    page = (cycle.home / "latest/report.html").read_text()
    assert "data:image/png;base64," in page and "http://" not in page.replace("http://www.w3.org", "")


def test_its_commands_were_forked_from_what_is_imported(cycle: Checkout, finished: str) -> None:
    said = "".join(path.read_text() for path in (cycle.home / "airflow" / "logs").rglob("*.log"))
    assert said.count("forked, process") >= 8, "those of the first seconds start by themselves, while the zygote imports"
    assert "starts by itself" not in said, "nobody gave a command an environment of its own"


def test_its_study_opens_in_optuna_dashboard(cycle: Checkout, finished: str) -> None:
    where = cycle.call("tune", "--storage").split()[-1]
    port = free_port()
    command = [Path(sys.executable).with_name("optuna-dashboard"), "--server", "wsgiref", "--port", str(port), where]
    dashboard = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        listed = _get(f"http://127.0.0.1:{port}/api/studies", dashboard)["study_summaries"]
        study = _get(f"http://127.0.0.1:{port}/api/studies/{listed[0]['study_id']}", dashboard)
    finally:
        dashboard.terminate()
        dashboard.wait()
    assert len(listed) == 1
    assert [trial["state"] for trial in study["trials"]].count("Complete") >= 1 and len(study["trials"]) == 2
    assert "train.learning_rate" in json.dumps(study["trials"][0]["params"])


def _get(url: str, server: subprocess.Popen[str], seconds: float = 60) -> dict[str, Any]:
    deadline = time.monotonic() + seconds
    while server.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                return dict(json.load(answer))
        except urllib.error.URLError:
            time.sleep(0.2)
    raise AssertionError(f"{url} did not answer")


@pytest.mark.slow  # as long as the run itself
def test_the_run_built_again_from_its_commit_is_identical(cycle: Checkout, finished: str) -> None:
    lines = cycle.call("replay", workspace(cycle).name, "--json").splitlines()
    [line] = [line for line in lines if '"identical"' in line]  # stderr has the stages' logs, JSON too
    said = json.loads(line)
    assert said["identical"] is True
    stages = {stage["stage"]: stage for stage in said["stages"]}
    assert stages["train"]["same"] >= 3 and list(stages)[-1] == "report"
    assert not any(stage["different"] for stage in stages.values())


def test_airflow_mlflow_dvc_and_git_tell_the_same_story(cycle: Checkout, finished: str) -> None:
    summary = json.loads((cycle.home / "latest/summary.json").read_text())
    with sqlite3.connect(cycle.home / "airflow/airflow.db") as database:
        assert database.execute("SELECT dag_id, state FROM dag_run").fetchall() == [("daily_retrain", "success")]
        tasks = dict(database.execute("SELECT task_id, state FROM task_instance").fetchall())
    assert {tasks[name] for name in ("open_run", "ingest", "train", "gate", "track", "register", "report", "summary")} == {
        "success"
    }
    with sqlite3.connect(cycle.home / "mlflow/mlflow.db") as database:
        versions = database.execute("SELECT version FROM model_versions").fetchall()
        aliases = database.execute("SELECT alias, version FROM registered_model_aliases").fetchall()
    assert [int(version) for (version,) in versions] == [1]
    promoted = summary["gate"]["verdict"] == "promote"
    assert aliases == ([("champion", 1)] if promoted else [])
    branch = f"runs/{summary['run']}"
    listed = git.git(cycle.root, "ls-tree", "-r", "--name-only", branch).split()
    assert {"params.yaml", "dvc.lock", "inputs/source.json", "completed/train.json"} <= set(listed)
    assert git.git(cycle.root, "status", "--porcelain", "--untracked-files=no") == " M params.yaml"
    if promoted:
        assert git.git(cycle.root, "rev-parse", "model/v1^{commit}") == git.git(cycle.root, "rev-parse", branch)


def test_again_with_nothing_changed_says_so_and_does_nothing(cycle: Checkout, finished: str) -> None:
    started = time.monotonic()
    said = cycle.call("run")
    assert "nothing to do" in said or "is finished" in said
    assert time.monotonic() - started < 60
    with sqlite3.connect(cycle.home / "airflow/airflow.db") as database:
        assert database.execute("SELECT COUNT(*) FROM dag_run").fetchone() == (1,)


@pytest.mark.parametrize("until", ["tokenize", pytest.param("report", marks=pytest.mark.slow)])  # each stage imports anew
def test_dvc_repro_in_another_clone_gives_the_digests_of_the_dags_run(
    cycle: Checkout, finished: str, tmp_path: Path, until: str
) -> None:
    other = make_checkout(tmp_path / "other")
    other.call("snapshot")
    command, environment = ["dvc", "repro", until], other.environment()
    done = subprocess.run(command, cwd=other.root, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    mine, theirs = digest_tree(workspace(cycle) / "out"), digest_tree(other.root / "out")
    made = {path.name for path in (other.root / "out").iterdir()}
    assert len(made) == (10 if until == "report" else 4)
    assert {name: mine[name] for name in mine if name.split("/")[0] in made} == theirs
    again = subprocess.run(command, cwd=other.root, env=environment, capture_output=True, text=True, check=True)
    assert "Running stage" not in again.stdout and again.stdout.count("didn't change, skipping") == len(made)


def test_the_readmes_short_commands_answer(cycle: Checkout, finished: str) -> None:
    run = workspace(cycle).name
    assert json.loads(cycle.call("report", "--json").splitlines()[-1])["run"] == run
    assert run in cycle.call("runs", "list")
    assert {item["stage"] for item in json.loads(cycle.call("runs", "show", run, "--json"))} >= {"ingest", "train", "gate"}
    assert "2026-03-04: champion v1: no labels" in cycle.call("feedback", "signals", "--as-of", "2026-03-04")
    assert cycle.call("feedback", "patch", "--dry-run", "--as-of", "2026-03-04").strip() == "no patches"
    assert "0 requests" in cycle.call("feedback", "drift", "--as-of", "2026-03-04")
    assert cycle.call("feedback", "status")
    assert cycle.call("annotate") and cycle.call("feedback", "arms")
    cycle.call("feedback", "undo", "--as-of", "2026-03-04", code=2)


def test_who_is_champion_is_in_the_ledger_and_by_hand_too(cycle: Checkout, finished: str) -> None:
    summary = json.loads((cycle.home / "latest/summary.json").read_text())
    assert summary["gate"]["verdict"] == "promote", summary["gate"]
    assert "v1" in cycle.call("ledger")
    assert "v1" in cycle.call("promote", "1")  # already champion: said, and nothing is written twice
    cycle.call("promote", "99", code=2)
    cycle.call("rollback", code=3)  # there is none before the first


@pytest.mark.slow  # the stages' own test is in the suite; this is the same through the DAG
def test_bad_rows_over_the_budget_stop_the_run_with_a_report(cycle: Checkout, finished: str) -> None:
    path = cycle.root / "reviews.jsonl"
    whole = path.read_text(encoding="utf-8")
    path.write_text(whole + '{"body": "", "stars": "pos", "at": "2026-03-04"}\n' * 400, encoding="utf-8")
    try:
        said = cycle.call("run", code=3)
    finally:
        path.write_text(whole, encoding="utf-8")
    assert "validate" in said and "empty-text" in said and "refused" in said
    [notice] = (cycle.home / "notices.jsonl").read_text().splitlines()
    assert json.loads(notice)["task"] == "validate"
