"""Two schedulers on PostgreSQL: a team's pool caps what is mapped, and one day's work that is asked for in every way at once is done once.

Real stages under real schedulers take minutes, so: nightly.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import yaml
from airflow_rest import until
from airflow_servers import Airflow, serve_airflow
from newcomer import make_checkout
from postgres_server import binaries

from autoglm_ops.contracts.record import Completion, digest_tree
from autoglm_ops.settings import load
from autoglm_ops.stages.releasing import open_registry
from autoglm_ops.stages.runner import run_stage
from autoglm_ops.stages.workplace import Workplace

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(binaries() is None, reason="no PostgreSQL here that another user than root can run"),
]

DAG = "daily_retrain"
SLOTS, TRIALS, SHARDS = 2, 5, 3
DONE = ("success", "failed")
MAPPED = """
SELECT dag_id, task_id, map_index, start_date, COALESCE(end_date, now()) FROM task_instance WHERE map_index >= 0 AND start_date IS NOT NULL
UNION ALL SELECT dag_id, task_id, map_index, start_date, end_date FROM task_instance_history WHERE map_index >= 0 AND start_date IS NOT NULL
"""


@pytest.fixture(scope="module")
def airflow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Airflow]:
    checkout = make_checkout(tmp_path_factory.mktemp("schedulers") / "checkout")
    path = checkout.root / "params.yaml"
    params = yaml.safe_load(path.read_text(encoding="utf-8"))
    params["tune"] |= {"strategy": "random", "trials": TRIALS, "parallel": TRIALS, "steps": 4, "looks": 1, "enabled": False}
    params["cluster"] |= {"slots": SLOTS}
    params["flow"] |= {"shard_mb": 1}
    path.write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    with serve_airflow(checkout, 2, 2 * TRIALS, (DAG, "feedback_retune", "monitor_production")) as served:
        yield served


def test_a_teams_slots_cap_trials_and_shards_over_all_runs_and_the_study_is_that_of_the_stage_alone(
    airflow: Airflow, tmp_path: Path
) -> None:
    built, trained = started(airflow)
    until(lambda: airflow.tasks("train_on_demand", trained).get("tune") in DONE, seconds=1800)
    assert airflow.tasks("train_on_demand", trained)["tune"] == "success", airflow.said()
    airflow.patch("train_on_demand", trained, "failed")  # nobody waits for its training
    until(lambda: airflow.tasks("dataset_build", built).get("ranges") in DONE, seconds=1200)
    assert airflow.tasks("dataset_build", built)["ranges"] == "success", airflow.said()
    airflow.patch("dataset_build", built, "failed")  # what comes after its shards were read is another test's

    rows = airflow.rows(MAPPED)
    names = {(task, index) for _, task, index, _, _ in rows}
    assert {("trials_1", index) for index in range(TRIALS)} <= names and {("read", index) for index in range(SHARDS)} <= names
    assert most_at_once([(start, end) for *_, start, end in rows]) == SLOTS

    [run] = [path.parents[1] for path in (airflow.checkout.home / "runs").glob("[!.]*/inputs/run.json")]
    alone = shutil.copytree(run, tmp_path / "alone", symlinks=True)
    for left in ("out/tune", "completed/tune.json", "out/train"):
        path = alone / left
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    place = Workplace.read(alone / ".workspace.json")
    place.model_copy(update={"home": str(tmp_path / "home")}).write(alone / ".workspace.json")
    run_stage("tune", alone)
    assert digest_tree(alone / "out" / "tune") == digest_tree(run / "out" / "tune")


def started(airflow: Airflow) -> tuple[str, str]:
    """A build of so many shards and a study whose trials come when the build's shards do; their runs."""
    raw = airflow.checkout.root / "raw"
    raw.mkdir()
    for part in range(SHARDS):
        texts = (
            f"text {number} of part {part} tells of ship {number * 7} and harbour {number * 13}. " * 4
            for number in range(3_500)
        )
        (raw / f"{part}.jsonl").write_text("".join(json.dumps({"body": text}) + "\n" for text in texts))
    trained = airflow.api.trigger("train_on_demand", {"tune": True})
    until(lambda: airflow.tasks("train_on_demand", trained).get("ask_1") == "running", seconds=1200)
    return airflow.api.trigger("dataset_build", {"location": str(raw)}), trained


def most_at_once(spans: list[tuple[datetime, datetime]]) -> int:
    moments = sorted([(start, 1) for start, _ in spans] + [(end, -1) for _, end in spans])
    now = most = 0
    for _, step in moments:
        now += step
        most = max(most, now)
    return most


def test_a_day_that_is_cleared_and_backfilled_and_retried_at_once_is_one_result(airflow: Airflow) -> None:
    """The day's own run, which the schedulers start; the data ended long ago, so that every day is the same work."""
    before = set(workspaces(airflow.checkout.home))
    code, answer = airflow.api.call("PATCH", f"/api/v2/dags/{DAG}", {"is_paused": False})
    assert code == 200, answer
    until(lambda: runs_of(airflow), seconds=60)
    [(daily, day)] = runs_of(airflow)
    until(lambda: airflow.tasks(DAG, daily).get("train") == "running", seconds=1200)
    with ThreadPoolExecutor(4) as hands:
        asked = [hands.submit(act, airflow, daily, day) for act in (clear, backfill, kill, trigger)]
    assert [hand.result() for hand in asked] == [None] * 4
    runs = [run for run, _ in runs_of(airflow)]
    assert len(runs) == 3, runs  # the day's, the day's before it by the backfill, and the one by hand
    until(lambda: all(airflow.api.state(DAG, run) in DONE for run in runs), seconds=1800)
    assert {run: airflow.api.state(DAG, run) for run in runs} == dict.fromkeys(runs, "success"), airflow.said()
    one_result(airflow, set(workspaces(airflow.checkout.home)) - before)

    backfill(airflow, daily, day)  # days that have ended: all of their tasks once more
    until(lambda: airflow.rows("SELECT count(*) FROM backfill WHERE completed_at IS NULL") == [(0,)], seconds=1200)
    assert {airflow.api.state(DAG, run) for run in runs} == {"success"}, airflow.said()
    one_result(airflow, set(workspaces(airflow.checkout.home)) - before)


def runs_of(airflow: Airflow) -> list[tuple[str, datetime]]:
    return [(run, day) for run, day in airflow.rows("SELECT run_id, logical_date FROM dag_run WHERE dag_id = %s", DAG)]


def clear(airflow: Airflow, daily: str, day: datetime) -> None:
    """What a person does in the UI to all tasks of a run, the one that works among them; once more where a backfill was quicker.

    Airflow answers 500 then: the rows that it had read were replaced meanwhile (StaleDataError).
    """
    body = {"dry_run": False, "dag_run_id": daily, "only_failed": False}
    until(lambda: airflow.api.call("POST", f"/api/v2/dags/{DAG}/clearTaskInstances", body)[0] == 200, seconds=30)


def backfill(airflow: Airflow, daily: str, day: datetime) -> None:
    """Of the day, and of the one before it."""
    span = {"from_date": (day - timedelta(days=1)).isoformat(), "to_date": day.isoformat()}
    code, answer = airflow.api.call("POST", "/api/v2/backfills", {"dag_id": DAG, **span, "reprocess_behavior": "completed"})
    assert code == 200, answer


def kill(airflow: Airflow, daily: str, day: datetime) -> None:
    """What the kernel does when memory is short: Airflow tries the task again."""
    for pid in airflow.commands()[-1:]:
        os.kill(pid, signal.SIGKILL)


def trigger(airflow: Airflow, daily: str, day: datetime) -> None:
    airflow.api.trigger(DAG, {"as_of": f"{day:%Y-%m-%d}"})


def workspaces(home: Path) -> list[Path]:
    return [path.parents[1] for path in (home / "runs").glob("[!.]*/inputs/run.json")]


def one_result(airflow: Airflow, made: set[Path]) -> None:
    """One workspace with a record of each stage, one version of it, one promotion, one tag, and nobody left.

    A backfill, which may not promote, has a workspace and a version of its own, unless the champion was there when it came.
    """
    [root] = [path for path in made if load(path / "params.yaml", environ={}).release.promote]
    assert len(made) <= 2
    for path in made:
        records = [Completion.read(record) for record in sorted((path / "completed").glob("*.json"))]
        assert {record.exit for record in records} == {0} and len(records) >= 14
    version = Completion.read(root / "completed" / "register.json").facts["version"]
    said = airflow.checkout.call("ledger", "--json").splitlines()
    [told] = [json.loads(line)["lines"] for line in said if line.startswith('{"lines"')]
    assert [(line["action"], line["model"]["version"]) for line in told if line["action"] == "promote"] == [
        ("promote", version)
    ]
    settings = load(airflow.checkout.root / "params.yaml", environ={})
    versions = open_registry(settings, airflow.checkout.home).versions()
    assert sorted(each.model.version for each in versions) == list(range(1, len(made) + 1))
    refs = subprocess.run(
        ["git", "for-each-ref", "--format=%(refname:short)"],
        cwd=airflow.checkout.root,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert [ref for ref in refs.split() if ref.startswith("model/")] == [f"model/v{version}"]
    assert {ref for ref in refs.split() if ref.startswith("runs/")} == {f"runs/{path.name}" for path in made}
    until(lambda: not airflow.commands(), seconds=30)
