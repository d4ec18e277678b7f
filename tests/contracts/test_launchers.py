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
from launcher_contract import Bench, LauncherContract

from autoglm_ops.cluster.local import LocalLauncher
from autoglm_ops.store import open_store


class TestLocalLauncher(LauncherContract):
    @pytest.fixture(params=["folder", "s3"])
    def bench(self, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
        uri = str(tmp_path / "store")
        if request.param == "s3":
            uri = f"{request.getfixturevalue('s3')}/{tmp_path.name}"
        monkeypatch.setenv("BENCH_SECRET", "correct-horse-battery")
        return Bench(LocalLauncher(grace=2), open_store(uri, tmp_path), uri, sys.executable, tmp_path)


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
