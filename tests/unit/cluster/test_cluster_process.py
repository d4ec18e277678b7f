"""A child process takes everything it started with it: whatever that does to get away."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from autoglm_ops.cluster.process import ChildProcess, marked
from autoglm_ops.cluster.services import start_time
from autoglm_ops.errors import UsageError

STUBBORN = """
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
body = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", body])                          # in our group
subprocess.Popen([sys.executable, "-c", body], start_new_session=True)  # in a session of its own
time.sleep(0.3)
print("ready", flush=True)
time.sleep(600 if "stay" in sys.argv else 0)
"""


class Lines(list[tuple[str, str]]):
    """A sink that can be waited on."""

    def __init__(self) -> None:
        super().__init__()
        self.ready = threading.Event()

    def __call__(self, stream: str, line: bytes) -> None:
        self.append((stream, line.decode("utf-8", errors="replace").rstrip("\n")))
        if b"ready" in line:
            self.ready.set()


def child(code: str, *words: str, sink: Lines | None = None, grace: float = 0.5) -> ChildProcess:
    command = [sys.executable, "-c", code, *words]
    return ChildProcess(
        command, cwd=Path.cwd(), environment=os.environ, sink=sink if sink is not None else Lines(), grace=grace
    )


def left(process: ChildProcess) -> list[int]:
    return marked(process._mark, process.pid)


def test_lines_of_both_streams_and_the_exit_code_arrive():
    lines = Lines()
    process = child("import sys; print('a'); print('b', file=sys.stderr); print('no newline', end=''); sys.exit(3)", sink=lines)
    assert process.wait() == 3
    assert sorted(lines) == [("stderr", "b"), ("stdout", "a"), ("stdout", "no newline")]


def test_stop_ends_grandchildren_that_ignore_sigterm_and_left_the_group():
    lines = Lines()
    process = child(STUBBORN, "stay", sink=lines)
    assert lines.ready.wait(10)
    assert len(left(process)) == 3
    started = time.monotonic()
    threading.Timer(0.1, process.stop).start()
    assert process.wait() == 128 + signal.SIGKILL
    assert time.monotonic() - started < 5
    assert left(process) == []


def test_what_a_child_leaves_behind_when_it_ends_well_is_ended_too():
    process = child(STUBBORN)
    assert process.wait() == 0
    assert left(process) == []


def test_a_gentle_child_has_its_grace_to_finish():
    lines = Lines()
    code = "import signal, sys, time; signal.signal(15, lambda *a: (print('saved', flush=True), sys.exit(7))); print('ready', flush=True); time.sleep(60)"
    process = child(code, sink=lines, grace=10)
    assert lines.ready.wait(10)
    process.stop()
    assert process.wait() == 7
    assert ("stdout", "saved") in lines


def test_an_exception_while_waiting_ends_everything(monkeypatch: pytest.MonkeyPatch):
    lines = Lines()
    process = child(STUBBORN, "stay", sink=lines)
    assert lines.ready.wait(10)
    monkeypatch.setattr(process, "_doze", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        process.wait()
    assert left(process) == []


def test_a_deadline_gives_none_and_leaves_nothing():
    process = child("import time; time.sleep(60)")
    assert process.wait(0.3) is None
    assert left(process) == []


def test_a_child_learns_that_its_parent_was_killed(tmp_path: Path):
    script = tmp_path / "parent.py"
    script.write_text(
        "import os, sys\nfrom pathlib import Path\nfrom autoglm_ops.cluster.process import ChildProcess\n"
        "c = ChildProcess([sys.executable, '-c', 'import time; time.sleep(60)'], cwd=Path('.'), environment=os.environ, sink=print)\n"
        "print(c.pid, flush=True); c.wait()\n"
    )
    parent = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    time.sleep(0.2)
    parent.kill()
    parent.wait()
    limit = time.monotonic() + 5
    while start_time(pid) and time.monotonic() < limit:
        time.sleep(0.05)
    assert start_time(pid) is None


@pytest.mark.parametrize(("command", "folder"), [("no-such-command", "."), (sys.executable, "no-such-folder")])
def test_what_cannot_start_is_one_message(command: str, folder: str):
    with pytest.raises(UsageError, match="cannot start"):
        ChildProcess([command], cwd=Path(folder), environment=os.environ, sink=Lines())


def test_a_line_without_end_is_cut_and_memory_stays_bounded():
    lines = Lines()
    assert child("import sys; sys.stdout.write('x' * 200_000)", sink=lines).wait() == 0
    assert max(len(text) for _, text in lines) <= 1 << 16
    assert sum(len(text) for _, text in lines) == 200_000
