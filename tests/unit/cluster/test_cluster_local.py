"""The local launcher keeps the contract of every launcher."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from autoglm_ops.cluster.local import Flag, LocalLauncher, explain_exit, on_signals
from autoglm_ops.cluster.services import start_time
from autoglm_ops.contracts.cluster import JobSpec
from autoglm_ops.errors import UsageError


def job(code: str, tmp_path: Path, **more: object) -> JobSpec:
    return JobSpec(name="job", command=(sys.executable, "-c", code), workdir=str(tmp_path), **more)


@pytest.mark.parametrize(("code", "state"), [(0, "succeeded"), (1, "failed"), (2, "failed"), (3, "failed"), (75, "failed")])
def test_the_exit_code_is_the_jobs_own(code: int, state: str, tmp_path: Path):
    status = LocalLauncher().run(job(f"raise SystemExit({code})", tmp_path))
    assert (status.state, status.exit) == (state, code)


def test_output_goes_to_stderr_and_to_the_log_and_not_to_stdout(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    log = tmp_path / "logs" / "job.log"
    LocalLauncher().run(job("import sys; print('out', flush=True); print('err', file=sys.stderr)", tmp_path, log=str(log)))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert sorted(captured.err.split()) == ["err", "out"] == sorted(log.read_text().split())


def test_the_jobs_environment_is_laid_over_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("A", "ours")
    monkeypatch.setenv("B", "ours")
    code = "import os, sys; sys.exit(0 if (os.environ['A'], os.environ['B']) == ('ours', 'theirs') else 1)"
    assert LocalLauncher().run(job(code, tmp_path, environment={"B": "theirs"})).exit == 0


def test_a_secret_comes_from_our_environment_or_the_job_does_not_start(tmp_path: Path):
    with pytest.raises(UsageError, match="AUTOGLM_NO_SUCH_SECRET"):
        LocalLauncher().run(job("", tmp_path, secrets=("AUTOGLM_NO_SUCH_SECRET",)))


def test_a_deadline_is_a_refusal(tmp_path: Path):
    status = LocalLauncher(grace=0.5).run(job("import time; time.sleep(60)", tmp_path, deadline_seconds=0.3))
    assert (status.state, status.exit) == ("deadline", 3)
    assert "0.3 s" in status.reason
    assert status.seconds < 5


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_cancels_the_whole_job(number: signal.Signals, tmp_path: Path):
    inner = f"import os, subprocess, sys, time; p = subprocess.Popen(['sleep', '60']); open({str(tmp_path / 'pid')!r}, 'w').write(str(p.pid)); time.sleep(60)"
    script = tmp_path / "launch.py"
    script.write_text(
        "import sys\nfrom autoglm_ops.cluster.local import LocalLauncher\nfrom autoglm_ops.contracts.cluster import JobSpec\n"
        f"status = LocalLauncher(grace=1).run(JobSpec(name='j', command=(sys.executable, '-c', {inner!r}), workdir='.'))\n"
        "print(status.state, status.exit)\n"
    )
    launcher = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    limit = time.monotonic() + 20
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < limit
        time.sleep(0.05)
    launcher.send_signal(number)
    assert launcher.communicate(timeout=20)[0].split() == ["cancelled", "143"]
    assert start_time(int((tmp_path / "pid").read_text())) is None


def test_handlers_are_put_back(tmp_path: Path):
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    LocalLauncher().run(job("", tmp_path))
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_signals_that_interrupt_each_others_handler_cannot_wait_for_each_other():
    """A lock in the handler (threading.Event has one) would be waited for by the very thread that holds it, for ever."""
    flag, count = Flag(), 0

    def stop() -> None:
        nonlocal count
        count += 1
        flag.set()

    before = signal.getsignal(signal.SIGALRM)
    with on_signals(stop):
        signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGTERM))
        signal.setitimer(signal.ITIMER_REAL, 1e-4, 2e-5)
        while count < 2000:
            flag.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
    assert flag


def test_exits_are_explained():
    assert explain_exit(3).startswith("exit:")
    assert "SIGKILL" in explain_exit(137)
    assert "memory" in explain_exit(137)
    assert "255" in explain_exit(255)
