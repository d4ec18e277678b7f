"""Deferral as production has it: under Airflow's scheduler with `[operators] default_deferrable`, a pod that no worker waits for, and the
triggerer killed while it trains. Minutes on two cores, so: nightly."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from airflow_rest import PATIENCE, Api, free_port, until

from autoglm_ops.cli import servers
from autoglm_ops.cli.airflow import airflow_environment
from autoglm_ops.cluster import services
from autoglm_ops.cluster.process import marked
from autoglm_ops.cluster.services import Service
from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.contracts.record import Completion

pytestmark = pytest.mark.slow

DAG, TRIGGERER = "deferred", "airflow triggerer"


class Platform:
    """Airflow's four servers, as `autoglm up` starts them, on a folder with one DAG."""

    def __init__(self, home: Path, dags: Path, run: Path) -> None:
        self.home, port = home, free_port()
        ports = servers.Ports(port, 0, 0)
        self.environment: Mapping[str, str] = {
            **os.environ,
            **airflow_environment(home, Path(os.environ["AUTOGLM_CHECKOUT"]), port),
            "AIRFLOW__CORE__DAGS_FOLDER": str(dags),
            "AIRFLOW__OPERATORS__DEFAULT_DEFERRABLE": "True",
            "OPENED_RUN": str(run),
        }
        self.servers = {one.name: one for one in servers.wanted(ports, home, None, "m") if one.name.startswith("airflow")}
        self.started: list[Service] = []
        for name in self.servers:
            self.start(name)
        servers.wait_healthy(tuple(self.started))
        self.api = Api(home, port)

    def start(self, name: str) -> None:
        self.started.append(self.servers[name].start(self.environment, self.home))

    def kill(self, name: str) -> None:
        """As `kill -9` of all of it."""
        [service] = [one for one in self.started if one.name == name]
        for pid in marked(service.mark, service.pid):
            os.kill(pid, signal.SIGKILL)

    def task(self, run: str) -> dict[str, Any]:
        code, answer = self.api.call("GET", f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances/train")
        assert code == 200, answer
        found: dict[str, Any] = answer
        return found

    def triggerer(self, run: str) -> int | None:
        """Whose the deferred task is; None when it is nobody's."""
        task = self.task(run)
        assert task["state"] not in ("failed", "upstream_failed", "up_for_retry"), task
        return int(task["triggerer_job"]["id"]) if task["state"] == "deferred" and task["triggerer_job"] else None


@pytest.fixture
def platform(info: RunInfo, tmp_path: Path) -> Iterator[Platform]:
    (tmp_path / "dags").mkdir()
    shutil.copy(Path(__file__).with_name("deferred_dag.py"), tmp_path / "dags")
    (tmp_path / "run.json").write_text(info.model_dump_json(), encoding="utf-8")
    made = Platform(tmp_path / "home", tmp_path / "dags", tmp_path / "run.json")
    yield made
    services.stop(made.started)
    assert [service.name for service in made.started if marked(service.mark, service.pid)] == []


def test_a_killed_triggerer_is_replaced_and_the_pod_goes_on(
    platform: Platform, info: RunInfo, core: Any, namespace: str
) -> None:
    until(lambda: platform.api.call("GET", f"/api/v2/dags/{DAG}")[0] == 200)
    run = platform.api.trigger(DAG, {})
    first = until(lambda: platform.triggerer(run), 400)
    until(lambda: _running(core, namespace))
    platform.kill(TRIGGERER)
    killed = time.monotonic()
    assert platform.task(run)["state"] == "deferred", "it was killed too late"
    platform.start(TRIGGERER)
    until(lambda: platform.triggerer(run) != first, 200)
    print(f"\nanother triggerer had the pod {time.monotonic() - killed:.1f} s after the first was killed")
    until(lambda: platform.api.state(DAG, run) in ("success", "failed"), PATIENCE)
    log = json.dumps(platform.api.call("GET", f"/api/v2/dags/{DAG}/dagRuns/{run}/taskInstances/train/logs/1")[1])
    assert platform.api.state(DAG, run) == "success", log[-3000:]
    assert "attempt 1: succeeded (exit 0)" in log and platform.environment["AWS_SECRET_ACCESS_KEY"] not in log
    done = Completion.read(Path(info.workspace) / "completed" / "train.json")
    assert (done.exit, done.attempt) == (0, 1) and platform.task(run)["try_number"] == 1
    assert core.list_namespaced_pod(namespace).items == []


def _running(core: Any, namespace: str) -> bool:
    pods = core.list_namespaced_pod(namespace, label_selector="autoglm.stage=train").items
    return [pod.status.phase for pod in pods] == ["Running"]
