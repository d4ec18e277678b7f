"""`autoglm up | down | airflow`: Airflow, the MLflow UI and the model server on this machine, and the environment they share with
`autoglm run`."""

from __future__ import annotations

import json
import os
import secrets
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autoglm_ops.cli import servers
from autoglm_ops.cli.servers import HOST
from autoglm_ops.cli.shared import checkout, home
from autoglm_ops.cluster import services
from autoglm_ops.cluster.libraries import LIBRARIES
from autoglm_ops.cluster.services import Service, Services
from autoglm_ops.errors import UsageError
from autoglm_ops.settings import load


def airflow_environment(home: Path, checkout: Path, port: int = 8080) -> dict[str, str]:
    """What Airflow needs in its environment for the embedded default: SQLite, LocalExecutor, loopback, no word to anyone outside.

    Makes $AUTOGLM_HOME/airflow and its secrets (files of mode 0600) when they are missing; no secret is in the environment itself.
    """
    root = home / "airflow"
    root.mkdir(parents=True, exist_ok=True)
    _password(root)
    path = [str(checkout / "plugins"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        **{name: os.environ.get(name, value) for name, value in LIBRARIES.items()},
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
        # A task's supervisor misses half of the ends of its child and looks again after this long: 5 s by default, 11 of 24 tasks.
        "AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
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
    fernet = path.name == "fernet_key"  # 32 bytes in URL-safe base64; the others sign, with SHA512: RFC 7518 asks for 64
    _keep_secret(path, secrets.token_urlsafe(32) + "=" if fernet else secrets.token_urlsafe(64))
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


def airflow(arguments: Annotated[list[str], typer.Argument(help="A command of Airflow's own, with its options.")]) -> None:
    """Run a command of Airflow itself on the platform's database, DAGs and plugins. AIRFLOW__* variables of yours win.

    \b
    autoglm airflow dags list
    autoglm airflow tasks states-for-dag-run daily_retrain RUN_ID
    """
    environment = {**airflow_environment(home(), checkout()), **os.environ}
    os.execve(sys.executable, [sys.executable, "-m", "airflow", *arguments], environment)  # noqa: S606 - no shell


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
    _stop(known)  # what a service that died by itself may have left
    with console.status("starting"):
        started = _start(airflow_port, mlflow_port, wait=wait)
    _show(console, started, "up")


def down() -> None:
    """Stop what `autoglm up` started, and nothing else."""
    stopped = _stop(_known())
    print(f"stopped {', '.join(stopped)}" if stopped else "nothing is up")


def _start(airflow_port: int, mlflow_port: int, *, wait: bool) -> tuple[Service, ...]:
    place, origin = home(), checkout()
    settings = load(origin / "params.yaml")
    ports = servers.Ports(airflow_port, mlflow_port, settings.serving.port)
    servers.require_free(ports)
    environment = {**os.environ, **airflow_environment(place, origin, airflow_port), **servers.environment(ports)}
    servers.make_databases(environment, place, settings.tracking.uri)
    started: tuple[Service, ...] = ()
    try:
        for server in servers.wanted(ports, place, settings.tracking.uri, settings.release.name):
            started = (*started, server.start(environment, place))
            Services(services=started).write(place / "up.json")
        if wait:
            servers.wait_healthy(started)
    except BaseException:
        _stop(started)
        raise
    return started


def _stop(known: tuple[Service, ...]) -> list[str]:
    stopped = services.stop(known)
    (home() / "up.json").unlink(missing_ok=True)
    return stopped


def _known() -> tuple[Service, ...]:
    path = home() / "up.json"
    return Services.read(path).services if path.exists() else ()


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


def add_to(app: typer.Typer) -> None:
    app.command()(up)
    app.command()(down)
    app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})(airflow)
