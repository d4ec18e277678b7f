"""Whole DagRuns on Airflow's own database, against a command line that keeps the contract and does no work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from autoglm_ops.cli.airflow import airflow_environment
from autoglm_ops.errors import UsageError

ROOT = Path(__file__).parents[2]
FAKE = ROOT / "tests" / "dags" / "fake"


class Airflow:
    """Drives DAGs here, in one process; every test has a home of its own, all share one database."""

    def __init__(self, home: Path) -> None:
        self.home = home

    def plan(self, **plan: Any) -> None:
        (self.home / "plan.json").write_text(json.dumps(plan))

    def lines(self, name: str) -> list[Any]:
        path = self.home / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def stages(self) -> list[str]:
        return [words[3] for words in self.lines("calls.jsonl") if words[:2] == ["runs", "exec"]]

    def drive(self, dag: str, run_id: str, conf: dict[str, Any] | None = None, day: int = 1) -> Any:
        from autoglm_airflow import engine

        return engine.drive(dag, conf or {}, datetime(2026, 1, day, tzinfo=UTC), run_id)

    def tasks(self, dag: str, run_id: str) -> dict[str, tuple[str, int]]:
        """State and tries of every task instance, as Airflow's database has them."""
        from airflow import settings
        from airflow.models.taskinstance import TaskInstance
        from sqlalchemy import select

        with settings.Session() as session:
            found = session.scalars(select(TaskInstance).where(TaskInstance.dag_id == dag, TaskInstance.run_id == run_id))
            return {
                ti.task_id: (str(ti.state.value if hasattr(ti.state, "value") else ti.state), ti.try_number) for ti in found
            }


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """In a process where Airflow was imported before, its home is fixed already: then that one is used."""
    home = Path(os.environ["AIRFLOW_HOME"]).parent if "airflow" in sys.modules else tmp_path_factory.mktemp("airflow")
    return airflow_environment(home, ROOT) | {
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
        "AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL": "0",  # a graph that changed within half a minute is seen, too
        "AUTOGLM_CHECKOUT": str(FAKE),
    }


@pytest.fixture
def airflow(environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Airflow]:
    mine = environment | {"AUTOGLM_HOME": str(tmp_path), "AUTOGLM_EVENTS": str(tmp_path / "events.jsonl")}
    for name, value in mine.items():
        monkeypatch.setenv(name, value)
    handlers = signal.getsignal(signal.SIGTERM)
    yield Airflow(tmp_path)
    signal.signal(signal.SIGTERM, handlers)


@pytest.mark.slow
def test_75_is_retried_and_3_is_not_and_a_failed_run_finishes_its_own_work(airflow: Airflow):
    airflow.plan(exits={"validate": [75, 3]}, verdict="reject")
    (ended,) = airflow.drive("daily_retrain", "manual__refused", {"as_of": "2026-01-14"})
    assert ended.state == "failed"
    tasks = airflow.tasks("daily_retrain", "manual__refused")
    assert tasks["validate"] == ("failed", 2)
    assert tasks["summary"][0] == "upstream_failed"
    states = [line["state"] for line in airflow.lines("events.jsonl") if line["task"] == "validate"]
    assert states == ["running", "up_for_retry", "running", "failed"]
    (notice,) = airflow.lines("notices.jsonl")
    assert (notice["task"], notice["reason"]) == ("validate", "exit 3: validate was told to end with 3")

    airflow.plan(verdict="reject")
    (ended,) = airflow.drive("daily_retrain", "manual__refused")
    assert ended.state == "success"
    stages = airflow.stages()
    assert (stages.count("ingest"), stages.count("validate")) == (1, 3)
    tasks = airflow.tasks("daily_retrain", "manual__refused")
    assert {name for name, (state, _) in tasks.items() if state == "skipped"} == {"approval", "promote", "deploy"}
    assert {tasks["report"][0], tasks["summary"][0]} == {"success"}

    (ended,) = airflow.drive("daily_retrain", "manual__refused")
    assert ended.state == "success"
    assert airflow.stages() == stages


def test_nothing_to_do_is_a_green_run(airflow: Airflow):
    airflow.plan(decision="champion")
    (ended,) = airflow.drive("daily_retrain", "manual__nothing", day=3)
    assert ended.state == "success"
    assert airflow.stages() == []
    tasks = airflow.tasks("daily_retrain", "manual__nothing")
    assert tasks.pop("open_run")[0] == "success"
    assert {state for state, _ in tasks.values()} == {"skipped"}


def test_the_loop_ends_where_nothing_fired(airflow: Airflow):
    airflow.plan(fired=False)
    (ended,) = airflow.drive("feedback_retune", "manual__quiet", day=4)
    assert ended.state == "success"
    assert airflow.stages() == []


def test_the_loop_triggers_one_retraining_with_the_winner_and_it_is_run(airflow: Airflow):
    airflow.plan(exits={"plan": [75, 0]})
    retune, retrain = airflow.drive("feedback_retune", "manual__loop", day=5)
    assert (retune.dag, retune.state, retrain.dag, retrain.state) == ("feedback_retune", "success", "daily_retrain", "success")
    opened = [words for words in airflow.lines("calls.jsonl") if words[:2] == ["runs", "open"]]
    assert opened[1][2:] == [
        "--dag=daily_retrain", "--dag-run-id=feedback_retune__manual__loop", "--as-of=2026-01-05",
        "--set=train.learning_rate=0.002", "--set=tune.enabled=false", "--json",
    ]  # fmt: skip
    told = [(line["task"], line["state"]) for line in airflow.lines("events.jsonl") if line["dag"] == "feedback_retune"]
    assert ("retrain", "success") in told
    assert airflow.tasks("feedback_retune", "manual__loop")["close_run"] == ("success", 1)


@pytest.mark.slow
def test_a_backfill_opens_each_day_and_may_not_promote(airflow: Airflow, capsys: pytest.CaptureFixture[str]):
    from autoglm_airflow import drive

    airflow.plan(decision="champion")
    words = ["daily_retrain", "--logical-date", "2026-01-11", "--until", "2026-01-12"]
    assert [drive.main(words), drive.main(words)] == [0, 0]
    opened = [line for line in airflow.lines("calls.jsonl") if line[:2] == ["runs", "open"]]
    assert [line[4] for line in opened] == ["--as-of=2026-01-11", "--as-of=2026-01-12"]
    assert all("--no-promote" in line for line in opened)
    assert "manual__backfill_2026-01-12: success" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        ["daily_retrain", "--conf", "{"],
        ["daily_retrain", "--conf", "[1]"],
        ["daily_retrain", "--logical-date", "yesterday"],
        ["daily_retrain", "--logical-date", "2026-01-02", "--until", "2026-01-01"],
    ],
)
def test_a_wrong_command_line_is_exit_2(airflow: Airflow, words: list[str], capsys: pytest.CaptureFixture[str]):
    from autoglm_airflow import drive

    assert drive.main(words) == 2
    assert "drive: " in capsys.readouterr().err
    assert airflow.lines("calls.jsonl") == []


def test_one_dag_is_driven_once_at_a_time(airflow: Airflow, environment: dict[str, str]):
    from autoglm_airflow import drive

    with drive._only_one("daily_retrain"):
        assert drive.main(["daily_retrain"]) == 75


@pytest.mark.parametrize(
    ("dag", "conf", "message"),
    [
        ("no_such_dag", {}, "known: daily_retrain"),
        ("train_on_demand", {"epochs": -1}, "epochs"),
        ("train_on_demand", {"epoch": 1}, "unknown parameter 'epoch'"),
    ],
)
def test_a_wrong_call_is_refused_before_any_work(airflow: Airflow, dag: str, conf: dict[str, Any], message: str):
    with pytest.raises(UsageError, match=message):
        airflow.drive(dag, "manual__wrong", conf)
    assert airflow.lines("calls.jsonl") == []
    assert airflow.tasks(dag, "manual__wrong") == {}


@pytest.mark.parametrize("number", [pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL])
def test_a_killed_run_leaves_no_child_and_is_gone_on_with(
    airflow: Airflow, environment: dict[str, str], number: signal.Signals
):
    from autoglm_ops.cluster.process import marked

    run_id, mark = f"manual__killed_{number.name}", f"mark-of-{number.name}"
    airflow.plan(sleep={"monitor": 300}, alerts=[{"name": "drift", "message": "psi"}])
    command = [sys.executable, "-m", "autoglm_airflow.drive", "monitor_production", "--run-id", run_id]
    child = subprocess.Popen(
        command, env={**os.environ, "AUTOGLM_JOB_MARKS": mark}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    limit = time.monotonic() + 60
    while not airflow.lines("calls.jsonl"):
        assert time.monotonic() < limit and child.poll() is None, child.communicate()
        time.sleep(0.1)
    child.send_signal(number)
    child.communicate(timeout=30)
    assert child.returncode == (143 if number is signal.SIGTERM else -9)
    limit = time.monotonic() + 10
    while list(marked(mark)) and time.monotonic() < limit:
        time.sleep(0.1)
    assert list(marked(mark)) == []
    (ended,) = airflow.drive("monitor_production", run_id)
    assert ended.state == "success"
    assert airflow.tasks("monitor_production", run_id) == {"monitor": ("success", 2), "alert": ("success", 1)}


@pytest.mark.slow
def test_trials_of_a_study_are_mapped_tasks_and_what_is_not_needed_is_skipped(
    airflow: Airflow, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AUTOGLM__TUNE__PARALLEL", "24")
    looks = [{"number": number, "choices": {}, "since": 0, "to": 10} for number in range(3)]
    airflow.plan(rounds=[looks[:2], looks[2:]])
    (ended,) = airflow.drive("train_on_demand", "manual__trials", day=6)
    assert ended.state == "success"
    calls = airflow.lines("calls.jsonl")
    trained = [
        json.loads(word.partition("=")[2])
        for words in calls
        if words[:2] == ["trial", "run"]
        for word in words
        if word.startswith("--look=")
    ]
    assert sorted(look["number"] for look in trained) == [0, 1, 2]
    assert sum(words[:2] == ["trial", "ask"] for words in calls) == 3  # the third one said that the study is over
    order = [
        words[1] if words[0] == "trial" else words[3] for words in calls if words[0] == "trial" or words[:2] == ["runs", "exec"]
    ]
    assert order.index("tune") > max(place for place, name in enumerate(order) if name in ("ask", "run"))
    tasks = airflow.tasks("train_on_demand", "manual__trials")
    assert {name: state for name, (state, _) in tasks.items() if state != "success"} == {
        "trials_3": "skipped",
        "trials_4": "skipped",
    }

    airflow.plan(decision="champion")
    (ended,) = airflow.drive("train_on_demand", "manual__none", day=7)
    states = {name: state for name, (state, _) in airflow.tasks("train_on_demand", "manual__none").items()}
    assert ended.state == "success" and states.pop("open_run") == "success" and set(states.values()) == {"skipped"}
