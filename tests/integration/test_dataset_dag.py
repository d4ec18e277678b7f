"""dataset_build on Airflow's own database, with the real engine: mapped tasks make what the command line makes, once."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from autoglm_ops.cli.airflow import airflow_environment

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_mapped_tasks_build_the_same_dataset_and_a_second_run_builds_nothing(tmp_path: Path) -> None:
    raw, home = tmp_path / "raw", tmp_path / "home"
    raw.mkdir()
    rows = [
        f"document {number} of this corpus tells of ship {number * 7} and harbour {number * 13}, where nobody knew what the day would bring"
        for number in range(12_000)
    ]
    lines = [json.dumps({"text": text}) for text in [*rows, *rows[:50]]]
    (raw / "a.jsonl").write_text("\n".join(lines[:8_000]) + "\n{broken\n")
    (raw / "b.jsonl").write_text("\n".join(lines[8_000:]) + "\n")
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("AUTOGLM", "AIRFLOW"))}
    environment = {**clean, **airflow_environment(home, ROOT), "OMP_NUM_THREADS": "1"}

    def drive(name: str) -> None:
        conf = {"location": str(raw), "set": {"flow.shard_mb": 1}}
        command = [sys.executable, "-m", "autoglm_airflow.drive", "dataset_build", "--run-id", name, "--conf", json.dumps(conf)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]

    drive("manual__one")
    with sqlite3.connect(home / "airflow" / "airflow.db") as database:
        found = database.execute("SELECT task_id, map_index, state FROM task_instance WHERE run_id = 'manual__one'").fetchall()
        told = database.execute("SELECT COUNT(*) FROM asset_event").fetchone()
    assert {state for _, _, state in found} == {"success"}
    assert sorted(index for name, index, _ in found if name == "read") == [0, 1]
    assert told == (1,)
    [dataset] = (home / "datasets").iterdir()
    drive("manual__two")
    assert [path.name for path in (home / "datasets").iterdir()] == [dataset.name]

    command = [sys.executable, "-m", "autoglm_ops", "data", "build", str(raw), "--set", "flow.shard_mb=1", "--json"]
    other = {**environment, "AUTOGLM_HOME": str(tmp_path / "other")}
    built = json.loads(subprocess.run(command, env=other, capture_output=True, check=True, timeout=300).stdout.splitlines()[-1])
    assert built["digest"] == dataset.name
    assert (built["seen"], built["quarantined"], built["dropped"]["duplicate"]) == (12_051, {"bad-json": 1}, 50)
