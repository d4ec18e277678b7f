"""What MLflow did not hear of a launch is told by the next one."""

from __future__ import annotations

from pathlib import Path

from autoglm_ops.contracts.launch import Estimate, LaunchPlan, RowSet
from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.settings import Settings
from autoglm_ops.stages.launch import deliver_overdue
from autoglm_ops.stages.launch_plan import Place
from autoglm_ops.tracking.mlflow import connect
from autoglm_ops.tracking.points import PointSpool, waiting


def finished(home: Path) -> Path:
    folder = home / "launches" / "abc"
    rows = RowSet(
        digest="d", data="d", tokenizer="t", format="text", length=8, vocabulary=300, pad_id=0, rows={"train": 1}, documents={}, tokens={}
    )  # fmt: skip
    plan = ParallelPlan(
        ranks=1, micro_batch=1, accumulation=1, zero_stage=0, precision="fp32", device="cpu", threads_per_rank=1, memory_bytes={},
        fits=True, reasons=(),
    )  # fmt: skip
    cost = Estimate(steps=1, seconds=1.0, money=0.0, basis="a guess")
    LaunchPlan(key="abc", config={}, settings=(), rows=rows, plan=plan, estimate=cost, inputs={"data": "d"}).write(
        folder / "plan.json"
    )
    spool = PointSpool(folder / "metrics.spool")
    spool.append(1, {"loss": 2.5}, at=1.0)
    spool.close()
    return spool.path


def test_the_next_launch_sends_it(tmp_path: Path) -> None:
    spool = finished(tmp_path)
    (tmp_path / "blocked").write_text("a file where a folder is wanted")
    away = Place(
        tmp_path,
        tmp_path,
        Settings.model_validate({"tracking": {"uri": f"sqlite:///{tmp_path / 'blocked' / 'mlflow.db'}"}}),
    )
    assert "MLflow at" in deliver_overdue(away)
    assert waiting(spool) == 1
    here = Place(tmp_path, tmp_path, Settings())
    assert deliver_overdue(here) == ""
    assert waiting(spool) == 0
    client = connect(None, tmp_path)
    [run] = client.search_runs([client.get_experiment_by_name("autoglm").experiment_id])
    assert (run.data.metrics["loss"], run.data.tags["autoglm.launch"], run.info.status) == (2.5, "abc", "FINISHED")
