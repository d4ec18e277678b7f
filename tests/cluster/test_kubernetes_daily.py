"""The README's chapter "Production": `autoglm run` with nothing changed but placement. `tune` and `train` are KubernetesPodOperator tasks
of the real daily_retrain; their inputs and outputs go through a real S3 server."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster_parts import placement, replayed, wait_for
from newcomer import make_checkout

from autoglm_ops.contracts.record import Completion


def test_daily_retrain_tunes_and_trains_in_pods(
    s3: str, plain: dict[str, str], s3_server: dict[str, str], core: Any, namespace: str, tmp_path: Path
) -> None:
    placed = {**s3_server, **placement(namespace, s3, plain)}
    checkout = replace(make_checkout(tmp_path / "checkout"), extra=placed)
    checkout.call("run", seconds=1500)
    [root] = [path.parent for path in checkout.home.glob("runs/*/.workspace.json")]
    for stage in ("tune", "train"):
        done = Completion.read(root / "completed" / f"{stage}.json")
        assert done.exit == 0 and "job_seconds" in done.measured
        logs = "".join(path.read_text(errors="replace") for path in checkout.home.rglob(f"task_id={stage}/attempt=1.log"))
        assert "Building pod autoglm-" in logs, "it was KubernetesPodOperator's"
        assert "attempt 1: succeeded (exit 0)" in logs, "the pod's log is the task's"
        assert placed["AWS_SECRET_ACCESS_KEY"] not in logs
    summary = json.loads((checkout.home / "latest" / "summary.json").read_text())
    assert summary["release"]["alias"] == "champion"
    wait_for(lambda: not core.list_namespaced_pod(namespace).items)
    replayed(replace(checkout, extra={**placed, "AUTOGLM__CLUSTER__BACKEND": "local"}), root)
