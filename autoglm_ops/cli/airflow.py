"""`autoglm up | down`: Airflow, the MLflow UI and the model server on this machine, and the environment they share with `autoglm run`."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autoglm_ops.cli.shared import checkout, home
from autoglm_ops.cluster import services
from autoglm_ops.cluster.services import Service, Services
from autoglm_ops.errors import AutoGLMError, UsageError
from autoglm_ops.settings import load

HOST = "127.0.0.1"
HEALTHY_SECONDS = 180.0


def airflow_environment(home: Path, checkout: Path, port: int = 8080) -> dict[str, str]:
    """What Airflow needs in its environment for the embedded default: SQLite, LocalExecutor, loopback, no word to anyone outside.

    Makes $AUTOGLM_HOME/airflow and its secrets (files of mode 0600) when they are missing; no secret is in the environment itself.
    """
    root = home / "airflow"
    root.mkdir(parents=True, exist_ok=True)
    _password(root)
    path = [str(checkout / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "AUTOGLM_HOME": str(home),
        "AUTOGLM_CHECKOUT": str(checkout),
        "AUTOGLM_PYTHON": sys.executable,
        "PYTHONPATH": os.pathsep.join(path),
        "AIRFLOW_HOME": str(root),
        # SQLite's own patience with another writer is 5 s, which a busy machine outlasts.
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{root / 'airflow.db'}?timeout=60",
        "AIRFLOW__LOGGING__BASE_LOG_FOLDER": str(root / "logs"),
        "AIRFLOW__CORE__EXECUTOR": "LocalExecutor",
        "AIRFLOW__CORE__PARALLELISM": str(os.cpu_count() or 1),
        "AIRFLOW__CORE__DAGS_FOLDER": str(checkout / "dags"),
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(checkout / "plugins"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "AIRFLOW__CORE__DEFAULT_TASK_RETRY_DELAY": "15",
        "AIRFLOW__CORE__FERNET_KEY_CMD": _command(root / "fernet_key"),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": "admin:admin",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(root / "passwords.json"),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"http://{HOST}:{port}/execution/",
        "AIRFLOW__API__HOST": HOST,
        "AIRFLOW__API__PORT": str(port),
        "AIRFLOW__API__WORKERS": "1",
        "AIRFLOW__API__BASE_URL": f"http://{HOST}:{port}",
        "AIRFLOW__API__SECRET_KEY_CMD": _command(root / "api_secret"),
        "AIRFLOW__API_AUTH__JWT_SECRET_CMD": _command(root / "jwt_secret"),
        "AIRFLOW__DAG_PROCESSOR__PARSING_PROCESSES": "1",
        "AIRFLOW__USAGE_DATA_COLLECTION__ENABLED": "False",
        "SCARF_ANALYTICS": "false",
        "DO_NOT_TRACK": "1",
        "NO_COLOR": "1",
    }


def _command(path: Path) -> str:
    """A command for Airflow's `…_CMD` options that prints the secret in `path`, which is made on first use."""
    _keep_secret(path, secrets.token_urlsafe(32) + "=")  # 32 bytes in URL-safe base64: what Fernet asks for
    return f"cat {shlex.quote(str(path))}"


def _password(root: Path) -> str:
    path = root / "passwords.json"
    _keep_secret(path, json.dumps({"admin": secrets.token_urlsafe(12)}))
    return str(json.loads(path.read_text(encoding="utf-8"))["admin"])


def _keep_secret(path: Path, secret: str) -> None:
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secret)


def up(
    airflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of Airflow's UI and API.")] = 8080,
    mlflow_port: Annotated[int, typer.Option(min=1, max=65535, help="Port of the MLflow UI.")] = 5000,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Return when all of it answers.")] = True,
) -> None:
    """Start Airflow, the MLflow UI and the model server on the loopback interface. `autoglm down` stops exactly these."""
    console = Console(highlight=False)
    known = _known()
    alive = [service for service in known if services.is_alive(service)]
    if alive and len(alive) == len(known):
        _show(console, known, "already up")
        return
    if alive:
        dead = ", ".join(service.name for service in known if service not in alive)
        raise UsageError(f"some of it is up and some has ended ({dead}); run `autoglm down` first, then `autoglm up`")
    settings = load(checkout() / "params.yaml")
    serving_port = settings.serving.port
    for name, port in (("Airflow", airflow_port), ("MLflow", mlflow_port), ("the model server", serving_port)):
        _require_free(name, port)
    started = _start(airflow_port, mlflow_port, serving_port, settings.release.name, settings.tracking.uri)
    try:
        if wait:
            with console.status("starting"):
                wait_healthy(started)
    except BaseException:
        _stop(started)
        raise
    _show(console, started, "up")


def down() -> None:
    """Stop what `autoglm up` started, and nothing else."""
    known = _known()
    stopped = _stop(known)
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing is up")


def wait_healthy(started: tuple[Service, ...], seconds: float = HEALTHY_SECONDS) -> None:
    """Wait until every server with a page answers. Raises AutoGLMError with the end of its log when one has ended instead."""
    limit = time.monotonic() + seconds
    waiting = [service for service in started if service.url and service.name != "model server"]
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


def _start(airflow_port: int, mlflow_port: int, serving_port: int, model: str, tracking: str | None) -> tuple[Service, ...]:
    place, origin = home(), checkout()
    environment = {**os.environ, **airflow_environment(place, origin, airflow_port)}
    environment["AUTOGLM_MLFLOW_URL"] = f"http://{HOST}:{mlflow_port}"
    environment["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] = "false"  # seven idle processes, 1.5 GB, for jobs nobody here submits
    python = sys.executable
    _prepare(environment, place, tracking)
    uri = tracking or f"sqlite:///{place / 'mlflow' / 'mlflow.db'}"
    mlflow = ["server", "--host", HOST, "--port", str(mlflow_port), "--workers", "1", "--backend-store-uri", uri]
    mlflow += ["--artifacts-destination", (place / "mlflow" / "artifacts").as_uri()]
    serve = [
        "-m",
        "autoglm_ops.cluster.again",
        "5",
        python,
        "-m",
        "autoglm_ops",
        "serve",
        "--model",
        f"models:/{model}@champion",
    ]
    commands = {
        "airflow api server": (["-m", "airflow", "api-server"], f"http://{HOST}:{airflow_port}"),
        "airflow scheduler": (["-m", "airflow", "scheduler", "--skip-serve-logs"], ""),
        "airflow dag processor": (["-m", "airflow", "dag-processor"], ""),
        "airflow triggerer": (["-m", "airflow", "triggerer", "--skip-serve-logs"], ""),
        "mlflow": (["-m", "mlflow", *mlflow], f"http://{HOST}:{mlflow_port}"),
        "model server": (serve, f"http://{HOST}:{serving_port}"),
    }
    started: tuple[Service, ...] = ()
    for name, (command, url) in commands.items():
        log = place / "logs" / f"{name.replace(' ', '-')}.log"
        service = services.start(name, [python, *command], environment=environment, cwd=place, log=log, url=url)
        started = (*started, service)
        Services(services=started).write(place / "up.json")
    return started


def _prepare(environment: dict[str, str], place: Path, tracking: str | None) -> None:
    """Make both databases, side by side, before the servers that would race to make them. Raises AutoGLMError."""
    steps = {
        "Airflow's database": "from autoglm_airflow.bundle import migrate; migrate()",
        "MLflow's database": f"from pathlib import Path; from autoglm_ops.tracking.mlflow import connect; connect({tracking!r}, Path({str(place)!r}))",
    }
    children = {
        name: subprocess.Popen(
            [sys.executable, "-c", code], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        for name, code in steps.items()
    }
    said = {name: child.communicate()[0] for name, child in children.items()}
    for name, child in children.items():
        if child.returncode != 0:
            raise AutoGLMError(f"{name} could not be made:\n" + "\n".join(said[name].splitlines()[-15:]))


def _stop(known: tuple[Service, ...]) -> list[str]:
    stopped = services.stop(known)
    (home() / "up.json").unlink(missing_ok=True)
    return stopped


def _known() -> tuple[Service, ...]:
    path = home() / "up.json"
    return Services.read(path).services if path.exists() else ()


def _require_free(name: str, port: int) -> None:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            options = {"Airflow": "--airflow-port", "MLflow": "--mlflow-port"}
            how = f"give {options[name]}" if name in options else "set serving.port in params.yaml"
            raise UsageError(f"port {port}, which {name} needs, is in use; stop what holds it, or {how}") from error


def _answers(service: Service) -> bool:
    page = "/api/v2/monitor/health" if service.name == "airflow api server" else "/health"
    try:
        with urllib.request.urlopen(f"{service.url}{page}", timeout=2) as answer:  # noqa: S310 - http to loopback
            body = answer.read()
    except (urllib.error.URLError, OSError):
        return False
    if service.name != "airflow api server":
        return True
    return all(json.loads(body)[part]["status"] == "healthy" for part in ("metadatabase", "scheduler", "dag_processor"))


def _show(console: Console, known: tuple[Service, ...], state: str) -> None:
    console.print(f"[bold]{state}[/]; `autoglm down` stops it")
    for service in known:
        if service.url:
            console.print(f"  {service.name:20} {service.url}", soft_wrap=True)
    passwords = home() / "airflow" / "passwords.json"
    if state == "up":
        console.print(f"  airflow login        admin / {_password(passwords.parent)}", soft_wrap=True)
    console.print(f"  secrets in files     {passwords}, {home() / 'serving' / 'api-key'} (the model server's)", soft_wrap=True)
    console.print(f"  logs                 {home() / 'logs'}", soft_wrap=True)


def _tail(path: Path, lines: int = 15) -> str:
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])


def add_to(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
