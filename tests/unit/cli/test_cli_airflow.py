"""The environment of the embedded Airflow, and what `up` refuses before anything starts."""

from __future__ import annotations

import base64
import json
import os
import socket
import sys
import time
from pathlib import Path

import pytest

from autoglm_ops.cli import servers
from autoglm_ops.cli.airflow import airflow_environment
from autoglm_ops.cluster.services import Service
from autoglm_ops.errors import AutoGLMError, UsageError


def test_everything_is_on_this_machine_and_says_nothing_to_others(tmp_path: Path):
    found = airflow_environment(tmp_path / "home", tmp_path / "checkout", 18080)
    assert found["AIRFLOW__API__HOST"] == "127.0.0.1"
    assert found["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18080/execution/"
    assert found["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].startswith(f"sqlite:///{tmp_path}/home/airflow/airflow.db")
    assert found["AIRFLOW__USAGE_DATA_COLLECTION__ENABLED"] == found["AIRFLOW__CORE__LOAD_EXAMPLES"] == "False"
    assert found["AIRFLOW__CORE__PARALLELISM"] == str(os.cpu_count())
    assert all(isinstance(value, str) for value in found.values())


def test_secrets_are_in_files_for_the_owner_alone_and_not_in_the_environment(tmp_path: Path):
    first = airflow_environment(tmp_path, tmp_path)
    files = {path.name: path.read_text() for path in (tmp_path / "airflow").iterdir() if path.is_file()}
    assert set(files) == {"passwords.json", "fernet_key", "api_secret", "jwt_secret"}
    assert all((tmp_path / "airflow" / name).stat().st_mode & 0o777 == 0o600 for name in files)
    assert len(base64.urlsafe_b64decode(files["fernet_key"])) == 32
    words = [*(text for name, text in files.items() if name != "passwords.json"), json.loads(files["passwords.json"])["admin"]]
    assert len(set(words)) == 4
    assert not [word for word in words if word in "".join(first.values())]
    assert airflow_environment(tmp_path, tmp_path) == first
    assert {path.name: path.read_text() for path in (tmp_path / "airflow").iterdir() if path.is_file()} == files


@pytest.mark.parametrize(("which", "how"), [(0, "--airflow-port"), (1, "--mlflow-port"), (2, "serving.port")])
def test_a_port_in_use_is_named_with_what_to_do(which: int, how: str):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        ports = [0, 0, 0]
        ports[which] = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"port {ports[which]}.*in use.*{how}"):
            servers.require_free(servers.Ports(*ports))


def test_servers_listen_on_the_loopback_interface_only(tmp_path: Path):
    found = {server.name: server for server in servers.wanted(servers.Ports(1, 2, 3), tmp_path, None, "autoglm")}
    assert [server.url for server in found.values() if server.url] == [f"http://127.0.0.1:{port}" for port in (1, 2, 3)]
    assert "0.0.0.0" not in str(found)
    assert found["model server"].arguments[-1] == "models:/autoglm@champion"
    assert f"sqlite:///{tmp_path}/mlflow/mlflow.db" in found["mlflow"].arguments
    remote = servers.wanted(servers.Ports(1, 2, 3), tmp_path, "https://mlflow.example", "autoglm")
    assert "mlflow" not in {server.name for server in remote}


def test_a_server_that_ends_while_starting_is_shown_with_the_end_of_its_log(tmp_path: Path):
    ended = servers.Server("mlflow", ("-c", "print('no such database')"), "http://127.0.0.1:1").start(os.environ, tmp_path)
    time.sleep(0.5)
    with pytest.raises(AutoGLMError, match=r"mlflow ended while starting(.|\n)*no such database"):
        servers.wait_healthy((ended,), seconds=20)


def test_a_server_that_never_answers_is_named(tmp_path: Path):
    me = Service(name="mlflow", pid=os.getpid(), started=_started(), mark="", url="http://127.0.0.1:1", log="its.log")
    with pytest.raises(AutoGLMError, match=r"mlflow does not answer.*its\.log"):
        servers.wait_healthy((me,), seconds=0.1)


def _started() -> str:
    from autoglm_ops.cluster.services import start_time

    return start_time(os.getpid()) or sys.executable
