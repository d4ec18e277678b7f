"""`autoglm submit` on the cluster that $KUBECONFIG leads to."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
from cluster_parts import placement, wait_for
from submit_calls import Calls

from autoglm_ops.cluster.services import Service


@pytest.fixture
def submit(
    namespace: str,
    s3: str,
    plain: dict[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Calls:
    for name, value in placement(namespace, s3, plain).items():
        monkeypatch.setenv(name, value)
    return Calls(tmp_path, capsys, monkeypatch)


def test_a_job_goes_on_without_its_keeper_and_is_found_again(submit: Calls, core: Any, namespace: str) -> None:
    """As when the machine that submitted it was restarted. What came back is here, and the cluster is empty again."""
    ident = submit.submitted("--secret", "BENCH_SECRET", "--env", "NOTE=far", ticks=40)
    submit.wait(lambda: submit.says(ident, "begins far"))
    os.kill(Service.read(submit.home / "jobs" / ident / "keeper.json").pid, signal.SIGKILL)
    followed = submit("logs", ident, "--follow")
    assert followed.exit == 0 and "tick 39" in submit("logs", ident).out
    ended = submit.ended(ident)
    assert (ended["state"], ended["backend"]) == ("succeeded", "kubernetes")
    assert (Path(ended["output"]) / "out" / "made").read_text() == ident
    wait_for(lambda: not core.list_namespaced_pod(namespace).items)


def test_a_cancel_takes_it_off_the_cluster(submit: Calls, core: Any, namespace: str) -> None:
    ident = submit.submitted(ticks=600)
    submit.wait(lambda: submit.says(ident, "tick 0"))
    assert submit("cancel", ident, "--json").json["state"] == "cancelled"
    wait_for(lambda: not core.list_namespaced_pod(namespace).items)


def test_what_the_cluster_refuses_is_no_job(submit: Calls) -> None:
    said = submit("--image", "registry/trainer:1", "--", "true")
    assert said.exit == 3 and "is not among cluster.kubernetes.images" in said.err
    assert submit("list", "--json").json == []
