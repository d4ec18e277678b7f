"""The README's chapter "On Slurm": `autoglm run` with nothing changed but placement. Each round of trials is an array, and `train` a job
that is requeued half-way, under the real daily_retrain. What a scheduler's workers start at once is in test_slurm_trials."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from cluster_parts import replayed, wait_for
from newcomer import Checkout, make_checkout
from on_slurm import command, hurry, needs_slurm

from autoglm_ops.contracts.record import Completion
from autoglm_ops.contracts.training import TuningReport

pytestmark = [
    needs_slurm,
    pytest.mark.slow,
]  # three and a half minutes; its parts are in CI: a stage, a requeue, a round's trials
PLACED = {
    "AUTOGLM__CLUSTER__BACKEND": "slurm",
    "AUTOGLM__TUNE__PARALLEL": "2",
    "AUTOGLM__TRAIN__EPOCHS": "12",
    "AUTOGLM__RECOVERY__CHECKPOINT_STEPS": "5",
}


def test_daily_retrain_tunes_and_trains_on_slurm(tmp_path: Path) -> None:
    placed = {**PLACED, "AUTOGLM__CLUSTER__SLURM__LOGS": str(tmp_path / "logs"), "AUTOGLM__CLUSTER__DEADLINE_SECONDS": "400"}
    checkout = replace(make_checkout(tmp_path / "checkout"), extra=placed)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(checkout.call, "run", seconds=900)
        number = wait_for(lambda: running.done() or training(checkout), 600)
        if running.done():
            raise AssertionError(f"it ended before it could be requeued:\n{running.result()}")
        command("scontrol", "requeue", number)
        wait_for(lambda: running.done() or hurry(number))
        running.result()
    [root] = [path.parent for path in checkout.home.glob("runs/*/.workspace.json")]
    logs = {path.parent.name: path.read_text(errors="replace") for path in checkout.home.rglob("task_id=*/attempt=1.log")}
    trained = Completion.read(root / "completed" / "train.json")
    assert trained.exit == 0 and trained.measured["resumed_at_step"] > 0
    assert "attempt 1: succeeded (exit 0)" in logs["task_id=train"], (
        "a requeued job is the same attempt, and its log is the task's"
    )
    assert TuningReport.read(root / "out" / "tune" / "report.json").best
    assert "are Slurm's array" in logs["task_id=tune"], "`autoglm run` takes one task at a time, so the stage sends its rounds"
    assert json.loads((checkout.home / "latest" / "summary.json").read_text())["release"]["alias"] == "champion"
    assert command("squeue", "--noheader") == "", "no job is left"
    replayed(replace(checkout, extra={**placed, "AUTOGLM__CLUSTER__BACKEND": "local"}), root)


def training(checkout: Checkout) -> str:
    """The number of the job of `train`, once it left a checkpoint in the store; trials leave none there."""
    if not any((checkout.home / "store" / "notes" / "kept").glob("*")):
        return ""
    jobs = dict(line.split() for line in command("squeue", "--noheader", "--states=RUNNING", "--format=%j %A").splitlines())
    return next((number for name, number in jobs.items() if name.startswith("autoglm-train-")), "")
