"""docker-compose.yaml on a real engine, as a newcomer starts it: everything comes up, a run by REST is served, `down -v` leaves nothing.

Takes what test_images.py takes; with AUTOGLM_BASE_IMAGE, PostgreSQL too is Debian's, on that base.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from airflow_rest import Api, free_port, until
from newcomer import make_checkout
from test_images import BASE, built, docker

from autoglm_ops.versioning import git

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("DOCKER_HOST"), reason="DOCKER_HOST is not set: no engine to start it on"),
]


class Platform:
    """The compose project of a newcomer's clone, on free ports."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.ports = {name: free_port() for name in ("AIRFLOW_PORT", "MLFLOW_PORT", "MODEL_PORT")}
        self.given = {name: str(port) for name, port in self.ports.items()} | {"COMPOSE_PROJECT_NAME": f"test{os.getpid()}"}

    def compose(self, *words: str, check: bool = True) -> str:
        environment = {**os.environ, **self.given}
        done = subprocess.run(
            ["docker-compose", *words], cwd=self.root, env=environment, capture_output=True, text=True, check=False
        )
        assert not check or done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    def read(self, path: str) -> str:
        return self.compose("exec", "-T", "scheduler", "cat", path, check=False)

    def states(self) -> dict[str, str]:
        """How each container is: running, exited 0, …, with its health where it has one."""
        form = '{{index .Config.Labels "com.docker.compose.service"}} {{.State.Status}} {{.State.ExitCode}}{{if .State.Health}} {{.State.Health.Status}}{{end}}'
        names = self.compose("ps", "-q").split()
        said = docker("inspect", "-f", form, *names) if names else ""
        return dict(line.split(" ", 1) for line in said.splitlines())


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    root = tmp_path_factory.mktemp("compose") / "checkout"
    make_checkout(root)
    git.commit_all(
        root, ["params.yaml", "reviews.jsonl"], "A dataset of our own"
    )  # what is not committed is not in the platform's clone
    made = Platform(root)
    made.given["AUTOGLM_IMAGE"] = built("platform")
    if BASE.startswith("localhost/"):
        tag = made.given["POSTGRES_IMAGE"] = "localhost/postgres:test"
        base = f"BASE_IMAGE={BASE}"
        docker(
            "build",
            "--network",
            "host",
            "--build-arg",
            base,
            "-f",
            "tests/cluster/postgres.Dockerfile",
            "-t",
            tag,
            "tests/cluster",
        )
    try:
        made.compose("up", "-d")
        yield made
    finally:
        print(made.compose("logs", "--no-color", "--tail", "40", check=False))
        made.compose("down", "-v", check=False)


def test_everything_comes_up_and_a_run_by_rest_is_served(platform: Platform, tmp_path: Path) -> None:
    states = platform.states()
    assert len(states) == 9 and {states[name] for name in ("init", "migrate")} == {"exited 0"}, states
    assert all(state.startswith("running 0") for name, state in states.items() if name not in ("init", "migrate")), states

    (tmp_path / "airflow").mkdir()
    (tmp_path / "airflow" / "passwords.json").write_text(platform.read("/work/runs/airflow/passwords.json"))
    api = Api(tmp_path, platform.ports["AIRFLOW_PORT"])
    until(lambda: api.call("GET", "/api/v2/dags/daily_retrain")[0] == 200)
    run = api.trigger("daily_retrain", {"as_of": "2026-03-04"})
    api.succeeds("daily_retrain", run)

    registry = f"http://127.0.0.1:{platform.ports['MLFLOW_PORT']}/api/2.0/mlflow/registered-models/alias"
    found = httpx.get(registry, params={"name": "autoglm", "alias": "champion"}).json()
    assert found["model_version"]["version"] == "1"
    key = platform.read("/work/runs/serving/api-key").split()[0]
    server = f"http://127.0.0.1:{platform.ports['MODEL_PORT']}"
    until(lambda: platform.compose("exec", "-T", "model", "true", check=False) == "" and _answers(server))
    answer = httpx.post(f"{server}/v1/classify", headers={"Authorization": f"Bearer {key}"}, json={"input": "很干净"})
    assert answer.status_code == 200 and answer.json()["version"] == 1
    assert httpx.post(f"{server}/v1/classify", json={"input": "x"}).status_code == 401


def test_no_secret_is_in_a_containers_configuration(platform: Platform) -> None:
    names = platform.compose("ps", "-q").split()
    told = docker("inspect", *names)
    secrets = [platform.read("/secrets/postgres"), *json.loads(platform.read("/work/runs/airflow/passwords.json")).values()]
    secrets += [platform.read(f"/work/runs/airflow/{name}") for name in ("fernet_key", "api_secret", "jwt_secret")]
    assert all(len(secret) > 8 and secret.strip() not in told for secret in secrets)


def _answers(server: str) -> bool:
    try:
        return httpx.get(f"{server}/healthz", timeout=2).status_code == 200
    except httpx.TransportError:
        return False
