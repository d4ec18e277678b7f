"""`autoglm data follow` as a person, a machine and a supervisor use it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from data_calls import TEXT, call, checkout

TABLE = "- {on: review, handler: document}\n"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a table of handlers, and a log of sixty reviews and one event that nobody handles."""
    root = checkout(tmp_path, monkeypatch)
    (root / "handlers.yaml").write_text(TABLE)
    monkeypatch.setenv("AUTOGLM__FLOW__LOG__HANDLERS", "handlers.yaml")
    (tmp_path / "log").mkdir()
    add(tmp_path, 0, 60)
    with (tmp_path / "log" / "a.jsonl").open("a") as file:
        file.write('{"type": "click", "body": {}}\n')
    return tmp_path


def add(place: Path, start: int, stop: int) -> None:
    with (place / "log" / "a.jsonl").open("a") as file:
        for number in range(start, stop):
            body = {"text": TEXT.format(number, number * 7919), "label": "ab"[number % 2]}
            file.write(json.dumps({"type": "review", "body": body}) + "\n")


def test_a_log_becomes_documents_and_documents_a_dataset(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log, out = str(place / "log"), place / "home" / "followed"
    told = json.loads(call(capsys, "follow", log, "--once", "--json"))
    assert told == {
        "seen": 61,
        "kept": 60,
        "documents": 60,
        "quarantined": {"no-handler": 1},
        "commits": 1,
        "handlers": {"reloaded": 0, "refused": 0},
        "out": str(out),
    }
    before = json.loads(call(capsys, "listing", str(out), "--json"))["listing"]
    built = json.loads(call(capsys, "build", str(out), "--jobs", "1", "--json", "--set", "flow.suite=null"))
    assert (built["seen"], built["kept"], built["quarantined"]) == (60, 60, {})
    assert json.loads(call(capsys, "follow", log, "--once", "--json"))["seen"] == 0
    assert json.loads(call(capsys, "listing", str(out), "--json"))["listing"] == before  # no news, no build
    add(place, 60, 62)
    said = call(capsys, "follow", log, "--once")
    assert "2 seen, 2 kept, in 1 commits" in said and "quarantined  none" in said
    assert json.loads(call(capsys, "listing", str(out), "--json"))["listing"] != before


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ((), 2, "name the log"),
        (("nothing",), 3, "is no folder"),
        (("kafka://h/t",), 2, "unknown source log 'kafka'"),
        (("redis://:geheim@h/s",), 2, "AUTOGLM_REDIS_PASSWORD"),
        (("LOG", "--set", "flow.log.handlers=null"), 2, "flow.log.handlers names no file"),
        (("LOG", "--set", "flow.log.handlers=h.yaml"), 2, "h.yaml cannot be read"),
        (("LOG", "--set", "flow.log.batch_events=0"), 2, "flow.log.batch_events"),
        (("LOG", "--set", "flow.log.out=expectations"), 2, "which no follower wrote"),
    ],
)
def test_what_cannot_be_is_said_in_a_line(
    place: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], code: int, says: str
) -> None:
    given = [str(place / "log") if item == "LOG" else item for item in arguments]
    said = call(capsys, "follow", *given, "--once", code=code)
    assert says in said and "Traceback" not in said and "geheim" not in said


def test_sigterm_ends_it_behind_its_batch(place: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "autoglm_ops",
        "data",
        "follow",
        str(place / "log"),
        "--json",
        "--set",
        "flow.log.batch_seconds=0.1",
    ]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        end = time.monotonic() + 60
        while not (place / "home" / "followed" / f"{1:012d}").exists():
            assert time.monotonic() < end and child.poll() is None
            time.sleep(0.02)
        add(place, 60, 65)
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=30)
    finally:
        child.kill()
    assert child.returncode == 0, err
    told = json.loads(out)
    assert told["seen"] == told["kept"] + 1 and told["seen"] in (61, 66)
