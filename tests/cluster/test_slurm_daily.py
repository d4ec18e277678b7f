"""`autoglm run` with nothing changed but `cluster.backend: slurm`: `tune` and `train` of the real daily_retrain are Slurm jobs."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from newcomer import make_checkout
from on_slurm import command, needs_slurm

from autoglm_ops.contracts.record import Completion
from conftest import ROOT

pytestmark = [needs_slurm, pytest.mark.slow]


def test_daily_retrain_tunes_and_trains_on_slurm(tmp_path: Path) -> None:
    placement = {
        "SLURM_CONF": os.environ["SLURM_CONF"],
        "AUTOGLM__CLUSTER__BACKEND": "slurm",
        "AUTOGLM__CLUSTER__SLURM__LOGS": str(tmp_path / "logs"),
        "AUTOGLM__CLUSTER__RESOURCES": json.dumps({"gpus": 1}),
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "plugins")]),
    }
    checkout = replace(make_checkout(tmp_path / "checkout"), extra=placement)
    checkout.call("run")
    [root] = [path.parent for path in checkout.home.glob("runs/*/.workspace.json")]
    for stage in ("tune", "train"):
        done = Completion.read(root / "completed" / f"{stage}.json")
        assert done.exit == 0 and "job_seconds" in done.measured
        logs = "".join(path.read_text(errors="replace") for path in checkout.home.rglob(f"task_id={stage}/attempt=1.log"))
        assert f"job autoglm-{stage}-" in logs and "attempt 1: succeeded (exit 0)" in logs, "the job's log is the task's"
    assert json.loads((checkout.home / "latest" / "summary.json").read_text())["release"]["promoted"] is True
    assert command("squeue", "--noheader") == ""
