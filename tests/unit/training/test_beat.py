"""Beats are whole, their ages are of this boot's monotonic clock, and liveness is judged without torch."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoglm_ops.training import beat
from autoglm_ops.training.alive import judge
from autoglm_ops.training.beat import Heart, read


def test_a_beat_says_where_a_rank_is(tmp_path: Path) -> None:
    heart = Heart(tmp_path, 1, attempt=2)
    heart.enter("training", 40)
    heart.at(41)  # within a fifth of a second: not written again
    (found,) = read(tmp_path)
    assert (found.rank, found.attempt, found.phase, found.step, found.resumed) == (1, 2, "training", 40, 40)
    assert 0 <= found.age(time.monotonic()) < 5
    assert read(tmp_path, attempt=1) == []


def test_a_beat_of_another_boot_is_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Heart(tmp_path, 0).enter("training")
    monkeypatch.setattr(beat, "boot", lambda: "another")
    assert read(tmp_path)[0].age(0.0) == float("inf")


def test_a_disk_that_takes_no_beat_stops_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heart = Heart(tmp_path, 0)

    def full(*_: object, **__: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    heart.enter("training", 1)
    assert read(tmp_path) == []


def test_what_cannot_be_read_is_no_beat(tmp_path: Path) -> None:
    folder = tmp_path / "beats"
    folder.mkdir()
    for number, text in enumerate(("", "{", "[]", "null", '{"rank": 1}')):
        (folder / f"rank-{number}.json").write_text(text)
    assert read(tmp_path) == []


@pytest.mark.parametrize(
    ("phase", "age", "alive", "said"),
    [
        ("training", 1.0, True, "rank 0 (training, step 7) last moved"),
        ("training", 500.0, False, "the limit is 60 s"),
        ("done", 500.0, True, "its one rank is done"),
    ],
)
def test_liveness(tmp_path: Path, phase: str, age: float, alive: bool, said: str) -> None:
    heart = Heart(tmp_path / "scratch" / "train-1" / "group", 0)
    heart.enter("training", 7)
    heart.enter(phase)  # type: ignore[arg-type]
    found, why = judge(tmp_path, 60.0, time.monotonic() + age)
    assert (found, said in why) == (alive, True)


def test_an_older_attempt_does_not_count(tmp_path: Path) -> None:
    Heart(tmp_path, 0, attempt=1).enter("training")
    path = tmp_path / "beats" / "rank-0.json"
    old = json.loads(path.read_text())
    path.write_text(json.dumps(old | {"monotonic": old["monotonic"] - 1000}))
    Heart(tmp_path, 1, attempt=2).enter("joining")
    assert judge(tmp_path, 60.0, time.monotonic())[0]


def test_the_probe_is_a_command_that_imports_no_torch(tmp_path: Path) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "autoglm_ops.training.alive", str(tmp_path), "--seconds", "5"]
    dead = subprocess.run(command, capture_output=True, text=True, check=False)
    assert dead.returncode == 1 and "no beat below" in dead.stdout
    assert not {"torch", "numpy", "pydantic"} & {line.rpartition("|")[2].strip() for line in dead.stderr.splitlines()}
    Heart(tmp_path, 0).enter("training", 3)
    alive = subprocess.run(command, capture_output=True, text=True, check=False)
    assert alive.returncode == 0 and "rank 0 (training, step 3)" in alive.stdout
