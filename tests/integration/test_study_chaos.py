"""A few kills of coordinators and workers, on SQLite and on a real PostgreSQL; `make chaos-tune` does a hundred of each."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from postgres_server import PASSWORD, binaries, serve_postgres

ROOT = Path(__file__).parents[2]
SCRIPT = (
    "import json, sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from chaos_tune import campaign\n"
    "print(json.dumps(campaign(sys.argv[3] or None, 4, Path(sys.argv[2]), seed=3)))\n"
)


def survived(folder: Path, url: str) -> str:
    """In a process of its own, which may fork: this one has threads."""
    command = [sys.executable, "-c", SCRIPT, str(ROOT / "tests" / "benchmarks"), str(folder), url]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def right(said: str) -> bool:
    import json

    found = json.loads(said.splitlines()[-1])
    return found["kills"] >= 4 and found["right"] == found["studies"] >= 1


@pytest.mark.slow
def test_killed_studies_on_sqlite_end_right(tmp_path: Path) -> None:
    assert right(survived(tmp_path, ""))


@pytest.mark.slow
@pytest.mark.skipif(binaries() is None, reason="no PostgreSQL here that another user than root can run")
def test_killed_studies_on_postgresql_end_right_and_the_password_is_in_no_file(tmp_path: Path) -> None:
    with serve_postgres() as url:
        assert right(survived(tmp_path, url))
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and PASSWORD.encode() in path.read_bytes()]


def test_a_server_that_is_away_is_tried_again_and_its_password_not_said(tmp_path: Path) -> None:
    pytest.importorskip("psycopg")
    from autoglm_ops.errors import TryAgain
    from autoglm_ops.tuning.database import Database
    from autoglm_ops.tuning.space import parse_space

    space = parse_space({"train.learning_rate": {"loguniform": [1e-4, 1e-1]}})
    with pytest.raises(TryAgain, match="does not answer") as error:
        Database(tmp_path, f"postgresql+psycopg://autoglm:{PASSWORD}@127.0.0.1:9/x", "s", space, {"train.learning_rate": 1e-2})
    assert PASSWORD not in str(error.value)


def test_a_database_without_its_driver_is_a_wrong_call(tmp_path: Path) -> None:
    from autoglm_ops.errors import UsageError
    from autoglm_ops.tuning.database import Database
    from autoglm_ops.tuning.space import parse_space

    space = parse_space({"train.learning_rate": {"loguniform": [1e-4, 1e-1]}})
    with pytest.raises(UsageError, match="driver is not here"):
        Database(tmp_path, "postgresql+pg8000://autoglm@127.0.0.1:9/x", "s", space, {"train.learning_rate": 1e-2})
