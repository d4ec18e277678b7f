"""Airflow as a cluster has it: PostgreSQL, an API server, a DAG processor and several schedulers with a LocalExecutor each."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
from airflow_rest import Api, free_port, until
from newcomer import Checkout
from postgres_server import serve_postgres

from autoglm_ops.cli.airflow import airflow_environment
from autoglm_ops.cluster import services
from autoglm_ops.cluster.process import marked
from autoglm_ops.cluster.services import Service

SERVERS = {"api server": ("api-server",), "dag processor": ("dag-processor",)}


@dataclass(frozen=True)
class Airflow:
    """What runs, and how it is asked."""

    checkout: Checkout
    api: Api
    url: str
    servers: tuple[Service, ...]

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        """What Airflow's database says."""
        with psycopg.connect(self.url.replace("+psycopg", "")) as connection:
            return list(connection.execute(query, values).fetchall())

    def tasks(self, dag: str, run: str) -> dict[str, str]:
        """The state of each task that is not mapped."""
        query = "SELECT task_id, state FROM task_instance WHERE dag_id = %s AND run_id = %s AND map_index < 0"
        return dict(self.rows(query, dag, run))

    def commands(self) -> list[int]:
        """Processes of commands that tasks started."""
        ours = {pid for server in self.servers for pid in marked(server.mark, group=server.pid)}
        return [pid for pid in ours if b"autoglm_ops" in _command(pid)]

    def patch(self, dag: str, run: str, state: str) -> None:
        code, answer = self.api.call("PATCH", f"/api/v2/dags/{dag}/dagRuns/{run}", {"state": state})
        assert code == 200, answer

    def said(self) -> str:
        """The end of the last task's log, for a failing test."""
        return self.checkout.logs()


@contextmanager
def serve_airflow(checkout: Checkout, schedulers: int, at_once: int, paused: Sequence[str]) -> Iterator[Airflow]:
    """`at_once`: tasks that each scheduler has room for. `paused`: DAGs whose schedules wait."""
    port = free_port()
    with serve_postgres() as url:
        environment = {
            **checkout.environment(),
            **airflow_environment(checkout.home, checkout.root, port),
            "PYTHONPATH": os.pathsep.join([str(checkout.root / "plugins"), str(checkout.root)]),
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": url,
            "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN_ASYNC": url.replace("+psycopg", "+psycopg_async"),
            "AIRFLOW__CORE__PARALLELISM": str(at_once),
            "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "2",
            **checkout.extra,
        }
        code = "from autoglm_airflow import bundle; bundle.migrate(); bundle.load()"
        made = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
        assert made.returncode == 0, made.stderr[-3000:]
        with psycopg.connect(url.replace("+psycopg", "")) as connection:
            connection.execute("UPDATE dag SET is_paused = true WHERE dag_id = ANY(%s)", [list(paused)])
        each = {f"scheduler {number}": ("scheduler", "--skip-serve-logs") for number in range(schedulers)}
        started = tuple(_start(name, words, environment, checkout.home) for name, words in {**SERVERS, **each}.items())
        try:
            api = until(lambda: _answers(checkout.home, port))
            yield Airflow(checkout, api, url, started)
        finally:
            services.stop(started)
    assert [server.name for server in started if marked(server.mark, server.pid)] == []


def _start(name: str, words: tuple[str, ...], environment: dict[str, str], home: Path) -> Service:
    log = home / "logs" / f"{name.replace(' ', '-')}.log"
    command = [sys.executable, "-m", "airflow", *words]
    return services.start(name, command, environment=environment, cwd=home, log=log, url="")


def _answers(home: Path, port: int) -> Api | None:
    try:
        return Api(home, port)
    except (OSError, KeyError, TypeError):
        return None


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""
