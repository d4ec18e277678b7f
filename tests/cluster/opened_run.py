"""A run that has come as far as `train`, and Airflow's home with its tables: fixtures of the tests of TrainOnKubernetes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from away_workspace import placed, prepared
from cluster_parts import BARE, IMAGE, ROOT, SECRETS

from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.stages.workplace import Workplace
from autoglm_ops.versioning import dvc

RUN = "0123456789abcdef"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Airflow's home with its tables, to be copied."""
    from autoglm_ops.cli.airflow import airflow_environment

    home = tmp_path_factory.mktemp("database")
    environment = {**os.environ, **airflow_environment(home, ROOT)}
    subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True, capture_output=True, env=environment)
    return home


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace whose next stage is `train`, to be copied; long enough for a second worker to come while it trains."""
    return prepared(tmp_path_factory.mktemp("ready") / "w", 16)


@pytest.fixture
def airflow(database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Airflow as the DAG tests have it, and the command line of this checkout."""
    from autoglm_ops.cli.airflow import airflow_environment

    shutil.copytree(database, tmp_path / "home")
    path = [str(ROOT / "tests" / "cluster" / "mounting")] if not IMAGE else []
    for name, value in airflow_environment(tmp_path / "home", ROOT).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([*path, str(ROOT), str(ROOT / "plugins")]))
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(ROOT))
    monkeypatch.setenv("AUTOGLM_HOME", str(tmp_path / "home"))


@pytest.fixture
def info(
    airflow: Any, ready: Path, namespace: str, s3: str, plain: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> RunInfo:
    """A run that has come as far as `train`."""
    place = {"namespace": namespace, "images": [IMAGE or BARE], "secret": "team-keys"}
    home = tmp_path / "home"
    root = placed(
        shutil.copytree(ready, home / "runs" / RUN), backend="kubernetes", image=IMAGE or BARE, kubernetes=place, secrets=list(SECRETS),
        environment=plain, start_seconds=120, deadline_seconds=300,
    )  # fmt: skip
    monkeypatch.setenv("AUTOGLM__STORE__URI", s3)
    Workplace(run=RUN, origin=str(root), home=str(home)).write(root / ".workspace.json")
    shutil.copy(ROOT / "dvc.yaml", root)
    with (root / "params.yaml").open("a") as params:
        params.write("seed: 7\n")
    shutil.copytree(ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("tmp", "cache", "config.local"))
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    dvc.configure(root, home)
    return RunInfo(
        run=RUN, workspace=str(root), dag="daily_retrain", dag_run_id="r", decision="run", reason="", as_of="2026-01-14", content_key="c", opened=0.0
    )  # fmt: skip
