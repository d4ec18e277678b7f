"""The README's chapter "Production": `autoglm run` with nothing changed but placement. `tune` and `train` are KubernetesPodOperator tasks
of the real daily_retrain; their inputs and outputs go through a real S3 server."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cluster_parts import BARE, IMAGE, ROOT, wait_for
from newcomer import Checkout, make_checkout

from autoglm_ops.contracts.record import Completion, digest_path


@pytest.fixture
def placement(namespace: str, s3: str, plain: dict[str, str], s3_server: dict[str, str]) -> dict[str, str]:
    """What the chapter has a team set."""
    path = [str(ROOT / "tests" / "cluster" / "mounting")] if not IMAGE else []
    return {
        **s3_server,
        "AUTOGLM__STORE__URI": s3,
        "AUTOGLM__CLUSTER__BACKEND": "kubernetes",
        "AUTOGLM__CLUSTER__IMAGE": IMAGE or BARE,
        "AUTOGLM__CLUSTER__ENVIRONMENT": json.dumps(plain),
        "AUTOGLM__CLUSTER__SECRETS": "[AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY]",
        "AUTOGLM__CLUSTER__KUBERNETES__NAMESPACE": namespace,
        "AUTOGLM__CLUSTER__KUBERNETES__IMAGES": json.dumps([IMAGE or BARE]),
        "AUTOGLM__CLUSTER__KUBERNETES__SECRET": "team-keys",
        "PYTHONPATH": os.pathsep.join([*path, str(ROOT), str(ROOT / "plugins")]),
    }


def test_daily_retrain_tunes_and_trains_in_pods(placement: dict[str, str], core: Any, namespace: str, tmp_path: Path) -> None:
    checkout = replace(make_checkout(tmp_path / "checkout"), extra=placement)
    checkout.call("run", seconds=1500)
    [root] = [path.parent for path in checkout.home.glob("runs/*/.workspace.json")]
    for stage in ("tune", "train"):
        done = Completion.read(root / "completed" / f"{stage}.json")
        assert done.exit == 0 and "job_seconds" in done.measured
        logs = "".join(path.read_text(errors="replace") for path in checkout.home.rglob(f"task_id={stage}/attempt=1.log"))
        assert "Building pod autoglm-" in logs, "it was KubernetesPodOperator's"
        assert "attempt 1: succeeded (exit 0)" in logs, "the pod's log is the task's"
        assert placement["AWS_SECRET_ACCESS_KEY"] not in logs
    summary = json.loads((checkout.home / "latest" / "summary.json").read_text())
    assert summary["release"]["alias"] == "champion"
    wait_for(lambda: not core.list_namespaced_pod(namespace).items)
    _the_same_here(replace(checkout, extra={**placement, "AUTOGLM__CLUSTER__BACKEND": "local"}), root)


def _the_same_here(checkout: Checkout, root: Path) -> None:
    """Replay builds every output of the run again, on this machine, and compares the digests."""
    before = digest_path(root / "out" / "train")
    lines = checkout.call("replay", root.name, "--json", seconds=900).splitlines()
    [line] = [line for line in lines if '"identical"' in line]
    assert json.loads(line)["identical"] is True and digest_path(root / "out" / "train") == before
