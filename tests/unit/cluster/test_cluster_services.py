"""Servers that outlive their starter, and are stopped exactly."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from autoglm_ops.cluster import services
from autoglm_ops.cluster.again import main as again
from autoglm_ops.cluster.process import marked
from autoglm_ops.cluster.services import Service, Services
from autoglm_ops.errors import UsageError

SERVER = """
import signal, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(600)"], start_new_session=True)
print("up", flush=True)
time.sleep(600)
"""


def start(tmp_path: Path, code: str = SERVER, name: str = "server") -> Service:
    log = tmp_path / f"{name}.log"
    service = services.start(name, [sys.executable, "-c", code], environment=os.environ, cwd=tmp_path, log=log, url="")
    limit = time.monotonic() + 10
    while "up" not in log.read_text() and time.monotonic() < limit:
        time.sleep(0.05)
    return service


def test_stop_ends_all_of_it_and_only_it(tmp_path: Path):
    ours, other = start(tmp_path), start(tmp_path, name="other")
    assert services.is_alive(ours)
    assert services.stop([ours], grace=0.5) == ["server"]
    assert not services.is_alive(ours)
    assert marked(ours.mark) == []
    assert services.is_alive(other)
    services.stop([other], grace=0.5)


RENAMED = """
import ctypes, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], env={}, start_new_session=True)
fields = open("/proc/self/stat").read().rpartition(")")[2].split()
start, end = int(fields[47]), int(fields[48])  # env_start, env_end
ctypes.memset(start, 0, end - start)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_a_server_that_wiped_its_environment_is_stopped_with_its_children(tmp_path: Path):
    service = start(tmp_path, RENAMED)
    assert marked(service.mark) == []
    assert len(marked(service.mark, group=service.pid)) == 2
    assert services.stop([service], grace=5) == ["server"]
    assert not services.is_alive(service)


def test_a_pid_that_is_somebody_elses_now_is_left_alone(tmp_path: Path):
    other = start(tmp_path)
    mistaken = other.model_copy(update={"started": "1", "mark": "0" * 32})
    assert services.stop([mistaken]) == []
    assert services.is_alive(other)
    services.stop([other], grace=0.5)


def test_the_record_is_read_back(tmp_path: Path):
    known = Services(services=(Service(name="a", pid=1, started="2", mark="m", url="u", log="l"),))
    known.write(tmp_path / "up.json")
    assert Services.read(tmp_path / "up.json") == known


def test_a_process_that_is_gone_has_no_start_time():
    assert services.start_time(2**22 + 1) is None
    assert services.start_time(os.getpid())


def test_no_such_command_is_one_message(tmp_path: Path):
    with pytest.raises(UsageError, match="cannot start x"):
        services.start("x", ["no-such-command"], environment=os.environ, cwd=tmp_path, log=tmp_path / "l", url="")


def test_again_runs_a_server_until_it_ends_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    code = "import pathlib, sys; p = pathlib.Path('n'); n = len(p.read_text()) if p.exists() else 0; p.write_text('x' * (n + 1)); sys.exit(75 if n < 2 else 0)"
    assert again(["0.01", sys.executable, "-c", code]) == 0
    assert Path("n").read_text() == "xxx"
