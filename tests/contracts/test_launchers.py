"""One contract for every launcher: work through the store ends in the same bytes, exit codes and refusals wherever it ran.

The local launcher runs here always; tests/cluster runs the same suite on what `KUBECONFIG` and `SLURM_CONF` lead to.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from launcher_contract import WRITE, Bench, LauncherContract, work

from autoglm_ops.cluster import exchange
from autoglm_ops.cluster.local import LocalLauncher
from autoglm_ops.contracts.cluster import JobSpec
from autoglm_ops.store import open_store


class TestLocalLauncher(LauncherContract):
    @pytest.fixture(params=["folder", "s3"])
    def bench(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
        uri = str(tmp_path / "store")
        if request.param == "s3":
            uri = f"{request.getfixturevalue('s3')}/{tmp_path.name}"
        monkeypatch.setenv("BENCH_SECRET", "correct-horse-battery")
        return Bench(LocalLauncher(grace=2), open_store(uri, tmp_path), uri, sys.executable, tmp_path)


@pytest.mark.parametrize(
    "secret", ["correct-horse-battery\n", "-----BEGIN KEY-----\ncorrect-horse-0\ncorrect-horse-1\n-----END KEY-----\n", "correct\r\ncorrect-horse-2"]
)  # fmt: skip
def test_F28_a_secret_of_more_than_one_line_is_in_no_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], secret: str
) -> None:
    """A Secret made from a file ends in a line break, and a key has many lines: none of them was the value."""
    monkeypatch.setenv("BENCH_SECRET", secret)
    monkeypatch.setenv("BENCH_OTHER", "correct-h")
    store = str(tmp_path / "store")
    bench = Bench(LocalLauncher(grace=2), open_store(store, tmp_path), store, sys.executable, tmp_path)
    tell = "s = os.environ['BENCH_SECRET']; print(s, [s], s.strip() + ' is it', flush=True); "
    said = bench.run(work(WRITE + tell + "p.joinpath('x').write_text('1')", secrets=("BENCH_OTHER", "BENCH_SECRET")))
    heard = capfd.readouterr().err
    assert said.state == "succeeded" and "is it" in heard and "orse" not in heard
    kept = bench.run(
        work(WRITE + "import json; p.joinpath('x').write_text(json.dumps(dict(os.environ)))", secrets=("BENCH_SECRET",))
    )
    assert (kept.state, kept.exit) == ("failed", 3) and "holds the value of the secret BENCH_SECRET" in kept.reason


@pytest.mark.parametrize("value", ["correct-horse-battery", "correct-h\udce9rse"], ids=["text", "bytes"])
def test_F28_a_secret_in_a_large_output_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A log of some megabytes had been stored unread."""
    monkeypatch.setenv("BENCH_SECRET", value)
    store = str(tmp_path / "store")
    bench = Bench(LocalLauncher(grace=2), open_store(store, tmp_path), store, sys.executable, tmp_path)
    tell = (
        "p.joinpath('empty').touch(); p.joinpath('log').write_bytes(bytes(6 << 20) + os.environb[b'BENCH_SECRET'] + bytes(9))"
    )
    said = bench.run(work(WRITE + tell, secrets=("BENCH_SECRET",)))
    assert (said.state, said.exit, said.outputs) == ("failed", 3, {}) and "log holds the value of the secret" in said.reason


def test_an_attempt_that_was_overtaken_does_not_begin(tmp_path: Path) -> None:
    """Two schedulers at once: the second claims before the first has sent its job, which had then trained to its end for nothing."""
    uri = str(tmp_path / "store")
    store = open_store(uri, tmp_path)
    key = exchange.describe(store, work(f"open({str(tmp_path / 'began')!r}, 'w').close()"))
    assert [exchange.claim(store, key) for _ in range(2)] == [1, 2]
    command = (sys.executable, "-m", "autoglm_ops.cluster.remote", key)
    first = JobSpec(name="bench", command=command, key=key, attempt=1, store=uri)
    assert LocalLauncher(grace=2).run(first).exit == 75 and not (tmp_path / "began").exists()
    assert LocalLauncher(grace=2).run(first.model_copy(update={"attempt": 2})).exit == 0 and (tmp_path / "began").exists()


def test_a_cancel_ends_the_work_and_leaves_no_result(tmp_path: Path) -> None:
    script = tmp_path / "launch.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom launcher_contract import Bench, work\n"
        "from autoglm_ops.cluster.local import LocalLauncher\nfrom autoglm_ops.store import open_store\n"
        f"folder = Path({str(tmp_path)!r})\n"
        "bench = Bench(LocalLauncher(grace=2), open_store(str(folder / 'store'), folder), str(folder / 'store'), sys.executable, folder)\n"
        "code = \"import pathlib, time; pathlib.Path('" + str(tmp_path / "started") + "').touch(); time.sleep(60)\"\n"
        "status = bench.run(work(code))\nprint(status.state, status.exit, status.outputs)\n"
    )
    path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
    launcher = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    )
    wait_for(lambda: (tmp_path / "started").exists())
    launcher.send_signal(signal.SIGTERM)
    assert launcher.communicate(timeout=30)[0].split() == ["cancelled", "143", "{}"]
    assert not list((tmp_path / "store" / "notes").glob("[rd]*/*"))


def wait_for(true: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_what_a_killed_job_left_goes_with_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a node's own disk lay its inputs and its checkpoints, for good."""
    place, store = tmp_path / "place", str(tmp_path / "store")
    place.mkdir()
    monkeypatch.setenv("AUTOGLM_JOB_FOLDER", str(place))
    bench = Bench(LocalLauncher(grace=2), open_store(store, tmp_path), store, sys.executable, tmp_path)
    killed = work(
        f"import os, signal, time; open({str(tmp_path / 'was')!r}, 'w').write(os.getcwd()); os.kill(os.getppid(), signal.SIGKILL); time.sleep(60)"
    )
    assert bench.run(killed).state == "failed"
    left = Path((tmp_path / "was").read_text())
    assert left.is_dir() and left.is_relative_to(place)
    assert bench.run(work(WRITE + "p.joinpath('x').write_text('1')")).state == "succeeded"
    assert list(place.iterdir()) == []
