"""The README's chapter "Production": `autoglm run` with nothing changed but placement. `tune` is a KubernetesPodOperator task of
the real daily_retrain, and `train` two pods of one rank each, of which one is deleted half-way; what they read and write goes through a
real S3 server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

from cluster_parts import log_of, placement, replayed, wait_for
from newcomer import make_checkout

from autoglm_ops.contracts.record import Completion

LONGER = {
    "AUTOGLM__PLAN__RANKS": "2",
    "AUTOGLM__CLUSTER__RESOURCES": '{"nodes": 2}',
    "AUTOGLM__TRAIN__EPOCHS": "12",
    "AUTOGLM__RECOVERY__CHECKPOINT_STEPS": "5",
}
"""Long enough for a pod to be deleted while it trains."""


def test_daily_retrain_tunes_and_trains_in_pods(
    s3: str, plain: dict[str, str], s3_server: dict[str, str], core: Any, namespace: str, tmp_path: Path
) -> None:
    placed = {**s3_server, **placement(namespace, s3, plain), **LONGER}
    checkout = replace(make_checkout(tmp_path / "checkout"), extra=placed)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(checkout.call, "run", seconds=1500)
        wait_for(lambda: running.done() or deleted_half_way(core, namespace), 900)
        running.result()
    [root] = [path.parent for path in checkout.home.glob("runs/*/.workspace.json")]
    done = {stage: Completion.read(root / "completed" / f"{stage}.json") for stage in ("tune", "train")}
    assert all(each.exit == 0 and "job_seconds" in each.measured for each in done.values())
    logs = {
        path.parent.name + path.stem[-2:]: path.read_text(errors="replace")
        for path in checkout.home.rglob("task_id=*/attempt=*.log")
    }
    assert "Building pod autoglm-" in logs["task_id=tune=1"], "it was KubernetesPodOperator's"
    assert "attempt 1: succeeded (exit 0)" in logs["task_id=tune=1"], "the pod's log is the task's"
    assert "train=2" in "".join(logs), f"it ended before a pod could be deleted:\n{logs['task_id=train=1'][-2000:]}"
    assert "deleted: somebody removed the pod" in logs["task_id=train=1"]
    assert "attempt 2: succeeded (exit 0)" in logs["task_id=train=2"], "Airflow tried again, and that went on"
    assert done["train"].attempt == 2 and done["train"].measured["resumed_at_step"] > 0
    assert not any(placed["AWS_SECRET_ACCESS_KEY"] in text for text in logs.values())
    summary = json.loads((checkout.home / "latest" / "summary.json").read_text())
    assert summary["release"]["alias"] == "champion"
    wait_for(lambda: not core.list_namespaced_pod(namespace).items)
    replayed(replace(checkout, extra={**placed, "AUTOGLM__CLUSTER__BACKEND": "local"}), root)


def deleted_half_way(core: Any, namespace: str) -> bool:
    """Whether the pod of rank 1 was deleted by this call: once rank 0 has kept what another attempt continues from."""
    pods = {pod.metadata.name: pod for pod in core.list_namespaced_pod(namespace, label_selector="autoglm.stage=train").items}
    first = next((name for name in pods if name.endswith("-0")), "")
    if "is kept for another attempt" not in log_of(core, first, namespace):
        return False
    core.delete_namespaced_pod(f"{first[:-1]}1", namespace, grace_period_seconds=0)
    return True
