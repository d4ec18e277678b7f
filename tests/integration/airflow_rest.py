"""Airflow's REST API as a test talks to it."""

from __future__ import annotations

import json
import socket
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

PATIENCE = 1500  # seconds: what hangs is told from what is slow, on cores that have other work too; nobody waits them all out


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Api:
    """Airflow's REST API, as the admin whose password `up` made."""

    def __init__(self, home: Path, port: int) -> None:
        self.base = f"http://127.0.0.1:{port}"
        password = json.loads((home / "airflow" / "passwords.json").read_text())["admin"]
        self.token = self.call("POST", "/auth/token", {"username": "admin", "password": password})[1]["access_token"]

    def call(self, method: str, path: str, body: Any = None, *, signed: bool = True) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"}
        if signed and hasattr(self, "token"):
            headers["Authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.base + path, data=data, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=45) as answer:
                code, raw = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            code, raw = error.code, error.read()
        try:
            return code, json.loads(raw)
        except ValueError:
            return code, raw.decode(errors="replace")

    def trigger(self, dag: str, conf: dict[str, Any]) -> str:
        code, answer = self.call("POST", f"/api/v2/dags/{dag}/dagRuns", {"logical_date": None, "conf": conf})
        assert code == 200, answer
        return str(answer["dag_run_id"])

    def state(self, dag: str, run: str) -> str:
        return str(self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}")[1]["state"])

    def tasks(self, dag: str, run: str) -> dict[str, str]:
        """State and attempt of each task, by name and place among the mapped."""
        found = self.call("GET", f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances")[1]["task_instances"]
        return {f"{task['task_id']} {task['map_index']}": f"{task['state']}, attempt {task['try_number']}" for task in found}

    def succeeds(self, dag: str, run: str, seconds: float = PATIENCE) -> None:
        """The run comes to its end, and that is success. Where it does not: how far each task has come, and what the failed said."""
        limit = time.monotonic() + seconds
        while (state := self.state(dag, run)) not in ("success", "failed") and time.monotonic() < limit:
            time.sleep(1)
        if state == "success":
            return
        tasks = self.tasks(dag, run)
        place = f"/api/v2/dags/{dag}/dagRuns/{run}/taskInstances"
        failed = [name.split()[0] for name, said in tasks.items() if said.startswith("failed")]
        logs = [json.dumps(self.call("GET", f"{place}/{task}/logs/1")[1])[-3000:] for task in failed]
        raise AssertionError("\n".join([f"{dag} {run}: {state}", json.dumps(tasks, indent=1), *logs]))


def until(what: Callable[[], Any], seconds: float = 600) -> Any:
    limit = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < limit
        time.sleep(1)
    return found
