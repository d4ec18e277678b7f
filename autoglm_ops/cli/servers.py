"""What `autoglm up` starts: each server's command and page, what it needs first, and when it can be said to be up."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from autoglm_ops.cluster import services
from autoglm_ops.cluster.services import Service
from autoglm_ops.errors import AutoGLMError, UsageError

HOST = "127.0.0.1"
HEALTHY_SECONDS = 180.0
API_SERVER, MODEL_SERVER = "airflow api server", "model server"


@dataclass(frozen=True)
class Ports:
    """Where each of the three answers, on the loopback interface."""

    airflow: int
    mlflow: int
    serving: int


@dataclass(frozen=True)
class Server:
    """One server to start: `python ARGUMENTS`. `url` is empty for those without a page."""

    name: str
    arguments: tuple[str, ...]
    url: str = ""

    def start(self, environment: Mapping[str, str], home: Path) -> Service:
        """Start it in the home folder, so that no checkout's files are taken for its modules."""
        log = home / "logs" / f"{self.name.replace(' ', '-')}.log"
        command = [sys.executable, *self.arguments]
        return services.start(self.name, command, environment=environment, cwd=home, log=log, url=self.url)


def wanted(ports: Ports, home: Path, tracking: str | None, model: str) -> list[Server]:
    """Every server, in the order of their start. A tracking URI that is somebody's HTTP server has its own UI: no second one."""
    server = [
        Server(API_SERVER, ("-m", "airflow", "api-server"), f"http://{HOST}:{ports.airflow}"),
        Server("airflow scheduler", ("-m", "airflow", "scheduler", "--skip-serve-logs")),
        Server("airflow dag processor", ("-m", "airflow", "dag-processor")),
        Server("airflow triggerer", ("-m", "airflow", "triggerer", "--skip-serve-logs")),
    ]
    if not (tracking or "").startswith("http"):
        server.append(_mlflow(ports.mlflow, home, tracking))
    serve = (sys.executable, "-m", "autoglm_ops", "serve", "--model", f"models:/{model}@champion")
    server.append(Server(MODEL_SERVER, ("-m", "autoglm_ops.cluster.again", "5", *serve), f"http://{HOST}:{ports.serving}"))
    return server


def _mlflow(port: int, home: Path, tracking: str | None) -> Server:
    uri = tracking or f"sqlite:///{home / 'mlflow' / 'mlflow.db'}"
    network = ("--host", HOST, "--port", str(port), "--workers", "1")
    storage = ("--backend-store-uri", uri, "--artifacts-destination", (home / "mlflow" / "artifacts").resolve().as_uri())
    return Server("mlflow", ("-m", "mlflow", "server", *network, *storage), f"http://{HOST}:{port}")


def environment(ports: Ports) -> dict[str, str]:
    """What the servers need besides Airflow's own environment."""
    return {
        "AUTOGLM_MLFLOW_URL": f"http://{HOST}:{ports.mlflow}",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # seven idle processes, 1.5 GB, for jobs nobody here submits
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }


def require_free(ports: Ports) -> None:
    """Raises UsageError for the first port that is taken, before anything starts."""
    for name, port, how in (
        ("Airflow", ports.airflow, "give --airflow-port"),
        ("MLflow", ports.mlflow, "give --mlflow-port"),
        ("the model server", ports.serving, "set serving.port in params.yaml"),
    ):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError as error:
                raise UsageError(f"port {port}, which {name} needs, is in use; stop what holds it, or {how}") from error


def make_databases(environment: Mapping[str, str], home: Path, tracking: str | None) -> None:
    """Make both databases, side by side, before the servers that would race to make them. Raises AutoGLMError."""
    mlflow = f"from autoglm_ops.tracking.mlflow import connect; connect({tracking!r}, Path({str(home)!r}))"
    steps = {
        "Airflow's database": "from autoglm_airflow.bundle import migrate; migrate()",
        "MLflow's database": f"from pathlib import Path; {mlflow}",
    }
    children = {name: _python(code, environment) for name, code in steps.items()}
    said = {name: child.communicate()[0] for name, child in children.items()}
    for name, child in children.items():
        if child.returncode != 0:
            raise AutoGLMError(f"{name} could not be made:\n" + "\n".join(said[name].splitlines()[-15:]))


def _python(code: str, environment: Mapping[str, str]) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, env=dict(environment), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_healthy(started: tuple[Service, ...], seconds: float = HEALTHY_SECONDS) -> None:
    """Wait until every server with a page answers; the model server may wait for its first champion, so it is not waited for.

    Raises AutoGLMError with the end of its log when one has ended instead, or does not answer within `seconds`.
    """
    limit = time.monotonic() + seconds
    waiting = [service for service in started if service.url and service.name != MODEL_SERVER]
    while waiting:
        for service in started:
            if not services.is_alive(service):
                raise AutoGLMError(
                    f"{service.name} ended while starting; the end of {service.log}:\n{_tail(Path(service.log))}"
                )
        waiting = [service for service in waiting if not _answers(service)]
        if waiting and time.monotonic() > limit:
            late = waiting[0]
            raise AutoGLMError(f"{late.name} does not answer at {late.url} after {seconds:g} s; its log: {late.log}")
        time.sleep(0.5 if waiting else 0)


def _answers(service: Service) -> bool:
    page = "/api/v2/monitor/health" if service.name == API_SERVER else "/health"
    try:
        with urllib.request.urlopen(f"{service.url}{page}", timeout=2) as answer:  # noqa: S310 - http to loopback
            body = answer.read()
    except (urllib.error.URLError, OSError):
        return False
    if service.name != API_SERVER:
        return True
    return all(json.loads(body)[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])
