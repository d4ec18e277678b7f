"""The Slurm launcher on the Slurm that $SLURM_CONF leads to; skipped, and said, where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from launcher_contract import Bench, LauncherContract

from autoglm_ops.cluster.slurm import SlurmLauncher
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.store import open_store

there = bool(os.environ.get("SLURM_CONF")) and shutil.which("sbatch") is not None
pytestmark = pytest.mark.skipif(not there, reason="no Slurm: set SLURM_CONF (and have sbatch) to test the Slurm launcher")


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    monkeypatch.setenv("BENCH_SECRET", "correct-horse-battery")
    uri = str(tmp_path / "store")
    launcher = SlurmLauncher(SlurmPlace(logs=str(tmp_path / "logs")), poll=0.2)
    return Bench(launcher, open_store(uri, tmp_path), uri, sys.executable, tmp_path)


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    yield
    left = subprocess.run(["squeue", "--noheader", "--format=%j %T"], capture_output=True, text=True, check=True).stdout
    assert left == "", "a test left a job on the cluster"


class TestSlurmLauncher(LauncherContract):
    pass
