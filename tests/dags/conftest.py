"""Airflow reads its configuration once, from the environment, when it is first imported: so the environment is set here, first."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoglm_ops.cli.airflow import airflow_environment

ROOT = Path(__file__).parents[2]
FAKE = Path(__file__).parent / "fake"
HOME = Path(tempfile.mkdtemp(prefix="autoglm-airflow-"))
atexit.register(shutil.rmtree, HOME, ignore_errors=True)
ENVIRONMENT = airflow_environment(HOME, ROOT) | {
    "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "1",
    "AUTOGLM_CHECKOUT": str(FAKE),
}
OURS = {name: value for name, value in ENVIRONMENT.items() if name.startswith("AUTOGLM")}
os.environ.update({name: value for name, value in ENVIRONMENT.items() if name not in OURS})


@pytest.fixture(autouse=True)
def _fake_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here alone: this file is imported for every test of the process, and others have a checkout and a home of their own."""
    for name, value in OURS.items():
        monkeypatch.setenv(name, value)


class World:
    """A home of its own for one test, and a command line that does what the test's plan says."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.events_file = home / "events.jsonl"

    def plan(self, **plan: Any) -> None:
        (self.home / "plan.json").write_text(json.dumps(plan))

    def lines(self, name: str) -> list[Any]:
        path = self.home / name
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def calls(self, *start: str) -> list[list[str]]:
        """Calls of the command line that begin with these words."""
        return [words for words in self.lines("calls.jsonl") if words[: len(start)] == list(start)]

    def stages(self) -> list[str]:
        return [words[3] for words in self.calls("runs", "exec")]

    def ends(self) -> dict[str, str]:
        """The last state told of each task."""
        return {event["task"]: event["state"] for event in self.lines("events.jsonl")}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setenv("AUTOGLM_HOME", str(tmp_path))
    monkeypatch.setenv("AUTOGLM_EVENTS", str(tmp_path / "events.jsonl"))
    return World(tmp_path)


@pytest.fixture(scope="session")
def dags() -> dict[str, Any]:
    """Every DAG of the folder, by id."""
    import runpy

    found = [runpy.run_path(str(path))["dag"] for path in sorted((ROOT / "dags").glob("*.py"))]
    return {dag.dag_id: dag for dag in found}


@pytest.fixture
def pulled() -> Callable[..., Any]:
    """A task's context, as far as the operators look into it."""
    from types import SimpleNamespace

    def context(xcoms: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
        from datetime import UTC, datetime

        pushed: dict[str, Any] = dict(xcoms or {})
        ti = SimpleNamespace(
            dag_id="d", run_id="manual__1", task_id="t", try_number=1, max_tries=4, map_index=-1, log_url="http://log",
            xcom_pull=lambda task_ids: pushed.get(task_ids), xcom_push=lambda key, value: pushed.__setitem__(key, value),
        )  # fmt: skip
        run = SimpleNamespace(run_id="manual__1", run_type="manual", conf={}, run_after=datetime(2026, 1, 3, tzinfo=UTC))
        params = {"as_of": None, "set": {}, "promote": None, "tune": None}
        base = {
            "ti": ti,
            "dag_run": run,
            "dag": SimpleNamespace(dag_id="d"),
            "params": params,
            "logical_date": datetime(2026, 1, 2, 5, tzinfo=UTC),
        }
        return base | more

    return context
