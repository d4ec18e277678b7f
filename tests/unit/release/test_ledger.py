"""The ledger: a chain that names what was changed, and writes that survive a kill and a full disk."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoglm_ops.contracts.release import ModelRef, Promotion
from autoglm_ops.errors import Tampered
from autoglm_ops.release.ledger import GENESIS, Ledger

LIMITED = """
import resource, sys
from pathlib import Path
from autoglm_ops.errors import TryAgain
from autoglm_ops.release.ledger import Ledger
ledger = Ledger(Path(sys.argv[1]))
line = ledger.lines()[-1]
resource.setrlimit(resource.RLIMIT_FSIZE, (ledger.path.stat().st_size + 20, -1))
try:
    ledger.append(line)
except TryAgain as error:
    print(error)
    sys.exit(error.exit_code)
"""


def crash(action: Callable[[], object], root: Path, stop: int) -> int:
    """Fork, do `action`, and SIGKILL at the `stop`-th touch of a file below `root`. Returns the touches of a whole run (stop=0)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal count
            if event in {"open", "os.rename", "os.remove", "os.truncate", "os.chmod", "os.mkdir"} and str(root) in str(
                arguments[0]
            ):
                count += 1
                if count == stop:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        action()
        os.write(writer, bytes([count]))
        os._exit(0)
    os.close(writer)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) == bool(stop)
    return next(iter(os.read(reader, 1)), 0)


def line(version: int) -> Promotion:
    model = ModelRef(name="autoglm", version=version, digest=f"{version:064x}")
    return Promotion(action="promote", model=model, replaced=None, run=f"r{version}", reasons=("better: 模型",), actor="a", at=float(version), previous=GENESIS)  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    made = Ledger(tmp_path / "ledger.jsonl")
    for version in (1, 2, 3, 4):
        with made.hold():
            made.append(line(version))
    return made


def test_lines_come_back_chained(ledger: Ledger) -> None:
    lines = ledger.lines()
    assert [item.model.version for item in lines if item.model] == [1, 2, 3, 4]
    assert lines[0].previous == GENESIS and len({item.previous for item in lines}) == 4


def test_an_empty_ledger_is_fine(tmp_path: Path) -> None:
    assert Ledger(tmp_path / "none.jsonl").lines() == []


@pytest.mark.parametrize("number", [1, 2, 3, 4])
def test_a_changed_line_is_named(ledger: Ledger, number: int) -> None:
    raw = ledger.path.read_text(encoding="utf-8").splitlines()
    raw[number - 1] = raw[number - 1].replace('"actor": "a"', '"actor": "b"')
    ledger.path.write_text("\n".join(raw) + "\n", encoding="utf-8")
    with pytest.raises(Tampered, match=rf"line {number} was changed"):
        ledger.lines()
    with pytest.raises(Tampered):
        ledger.append(line(5))


@pytest.mark.parametrize("keep", [[0, 1, 2], [1, 2, 3], [0, 2, 3], [0, 2, 1, 3], [0], []])
def test_missing_and_swapped_lines_show(ledger: Ledger, keep: list[int]) -> None:
    raw = ledger.path.read_text(encoding="utf-8").splitlines()
    ledger.path.write_text("".join(raw[index] + "\n" for index in keep), encoding="utf-8")
    with pytest.raises(Tampered):
        ledger.lines()


def test_an_added_line_and_nonsense_show(ledger: Ledger) -> None:
    raw = ledger.path.read_bytes()
    ledger.path.write_bytes(raw + b'{"not": "a line"}\n')
    with pytest.raises(Tampered, match="line 5 is not"):
        ledger.lines()
    extra = [json.loads(raw.splitlines()[-1]) | {"at": 99.0, "previous": GENESIS}]
    ledger.path.write_bytes(raw + json.dumps(extra[0]).encode() + b"\n")
    with pytest.raises(Tampered):
        ledger.lines()


def test_a_torn_last_line_never_counted(ledger: Ledger) -> None:
    with ledger.path.open("ab") as file:
        file.write(b'{"action": "promote", "model": {"na')
    assert len(ledger.lines()) == 4
    ledger.append(line(5))
    assert len(ledger.lines()) == 5


def test_a_kill_at_any_step_keeps_the_chain(ledger: Ledger, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def move() -> None:
        ledger.intend(line(5))
        ledger.append(line(5))

    steps = crash(move, tmp_path, 0)
    assert steps >= 6
    for stop in range(1, steps + 1):
        for path in tmp_path.iterdir():
            path.unlink()
        for name, data in before.items():
            (tmp_path / name).write_bytes(data)
        crash(move, tmp_path, stop)
        assert len(ledger.lines()) in (4, 5), f"step {stop}"
        ledger.append(line(6))
        assert ledger.lines()[-1].run == "r6"


def test_a_full_disk_leaves_the_ledger_as_it_was(ledger: Ledger) -> None:
    data = ledger.path.read_bytes()
    done = subprocess.run([sys.executable, "-c", LIMITED, str(ledger.path)], capture_output=True, text=True, check=False)
    assert done.returncode == 75 and "free space" in done.stdout
    assert ledger.path.read_bytes() == data and len(ledger.lines()) == 4


def test_an_intent_survives_until_the_line_is_written(ledger: Ledger) -> None:
    ledger.intend(line(5))
    assert Ledger(ledger.path).intent() == line(5)
    ledger.append(line(5))
    assert ledger.intent() is None
    assert not ledger.path.with_suffix(".intent").exists()
