"""What a command starts ends with it: by its end, by an error, by SIGTERM; a child that will not listen is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoglm_ops.cli import children

DEAF = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"
PARENT = """
import sys
from pathlib import Path
from autoglm_ops.cli.children import child, ended_by_sigterm
with ended_by_sigterm(), child(["sleep", "600"], Path(sys.argv[1])) as process:
    print(process.pid, flush=True)
    process.wait()
"""


def test_an_error_ends_the_child_and_its_end_leaves_it_alone(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ours"), children.child(["sleep", "600"], tmp_path / "log") as process:
        raise ValueError("ours")
    assert process.returncode == -signal.SIGTERM
    with children.child(["sh", "-c", "echo said; exit 3"], tmp_path / "log") as process:
        assert process.wait() == 3
    assert (tmp_path / "log").read_text() == "said\n"


def test_a_child_that_will_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "GRACE", 0.2)
    log = tmp_path / "log"
    with children.child([sys.executable, "-c", DEAF], log) as process:
        while "up" not in log.read_text():
            time.sleep(0.01)
    assert process.returncode == -signal.SIGKILL


def test_sigterm_of_the_command_ends_its_child(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PARENT, str(tmp_path / "log")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.terminate()
        assert parent.wait(20) == 128 + signal.SIGTERM
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
