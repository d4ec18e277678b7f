"""The command line as a user meets it: help, exit codes, one message for a mistake."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def autoglm(*arguments: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    import os

    clean = {key: value for key, value in os.environ.items() if not key.startswith("AUTOGLM")}
    command = [sys.executable, "-m", "autoglm_ops", *arguments]
    return subprocess.run(command, cwd=cwd, env={**clean, **environment}, capture_output=True, text=True, check=False)


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A folder with settings and nothing else: no git, no runs."""
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nonsense"], 2, "nonsense"),
        (["stage", "trian"], 2, "unknown stage 'trian'"),
        (["stage", "ingest"], 2, "autoglm snapshot"),
        (["run"], 2, "not a git checkout"),
        (["run", "--as-of", "tomorrow"], 2, "YYYY-MM-DD"),
        (["report"], 2, "make run"),
        (["runs", "show", "nothere"], 2, "no run 'nothere'"),
        (["runs", "exec", "../up", "train"], 2, "no run"),
        (["snapshot", "--set", "train.learning_rate=-1"], 2, "greater than 0"),
        (["snapshot", "--set", "data.path=nothere.jsonl"], 3, "does not exist"),
        (["snapshot", "--as-of", "2020-01-01"], 3, "before the dataset's first day"),
    ],
)
def test_a_mistake_gets_one_message_and_its_exit_code(empty: Path, arguments: list[str], code: int, said: str) -> None:
    done = autoglm(*arguments, cwd=empty)
    assert done.returncode == code, done.stderr
    assert said in done.stderr + done.stdout
    assert "Traceback" not in done.stderr


def test_a_snapshot_writes_inputs_and_the_overrides_it_was_given(empty: Path) -> None:
    done = autoglm("snapshot", "--as-of", "2026-01-05", "--set", "train.epochs=1", "--json", cwd=empty)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["as_of"] == "2026-01-05"
    names = {path.name for path in (empty / "inputs").iterdir()}
    assert names == {
        f"{name}.json"
        for name in ("as_of", "champion", "feedback", "folders", "hardware", "history", "patches", "signals", "source")
    }
    again = autoglm("snapshot", "--as-of", "2026-01-05", "--json", cwd=empty)
    assert json.loads(again.stdout)["digest"] == json.loads(done.stdout)["digest"]
    assert "epochs: 1" in (empty / "params.yaml").read_text(encoding="utf-8")


def test_an_empty_home_is_said_not_guessed(empty: Path) -> None:
    assert "no runs yet" in autoglm("runs", "list", cwd=empty).stdout
    assert "no champion" in autoglm("feedback", "signals", "--as-of", "2026-01-03", cwd=empty).stdout
    assert "no patches" in autoglm("feedback", "patches", cwd=empty).stdout
    assert json.loads(autoglm("monitor", "--json", cwd=empty).stdout)["alerts"] == []


def test_doctor_knows_this_machine() -> None:
    done = autoglm("doctor", "--json")
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert checks["git"]["ok"] and checks["torch"]["ok"] and checks["params.yaml"]["ok"]
    assert "unproven" in checks["gpu"]["advice"]
