"""The train stage of a workspace in pods, as `autoglm runs exec` runs it: one pod, two pods of one rank each, and a pod that is deleted
half-way. The weights are those of this machine, to the bit."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest
from away_workspace import placed, prepared
from cluster_parts import BARE, IMAGE, SECRETS, log_of, wait_for

from autoglm_ops.contracts.record import Completion, digest_path
from autoglm_ops.stages import runner, runs


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = prepared(tmp_path_factory.mktemp("here") / "w")
    runner.run_stage("train", root)
    return root


@pytest.fixture
def away(namespace: str, s3: str, plain: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same workspace with `cluster.backend: kubernetes`, and nothing else changed."""
    place = {"namespace": namespace, "images": [IMAGE or BARE], "secret": "team-keys"}
    root = prepared(
        tmp_path / "w", backend="kubernetes", image=IMAGE or BARE, kubernetes=place, secrets=list(SECRETS), environment=plain,
        start_seconds=120, deadline_seconds=300,
    )  # fmt: skip
    monkeypatch.setenv("AUTOGLM__STORE__URI", s3)
    return root


def same(away: Path, here: Path) -> bool:
    return digest_path(away / "out" / "train") == digest_path(here / "out" / "train")


def test_one_pod(away: Path, here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    completion = runs.launch(away, "train")
    assert same(away, here)
    assert completion.outputs == Completion.read(runner.completion_path(here, "train")).outputs
    heard = capfd.readouterr().err
    assert "attempt 1: succeeded" in heard and "correct-horse" not in heard
    assert "correct-horse" not in completion.to_json() and "test-secret" not in completion.to_json()


def test_two_pods_of_one_rank_each(away: Path, here: Path) -> None:
    runs.launch(placed(away, resources={"nodes": 2}), "train")
    assert same(away, here)


def test_a_pod_deleted_half_way_is_continued_to_the_same_weights(
    away: Path, here: Path, core: Any, namespace: str, capfd: pytest.CaptureFixture[str]
) -> None:
    removed = threading.Thread(target=_delete_after_a_checkpoint, args=(core, namespace, capfd.disabled))
    removed.start()
    with pytest.raises(runs.StageFailedError, match="deleted:") as caught:
        runs.launch(away, "train")
    removed.join()
    assert caught.value.exit_code == 75, "Airflow tries again"
    failed = Completion.read(runner.completion_path(away, "train"))
    assert (failed.exit, failed.reasons[0][:8]) == (75, "deleted:")
    completion = runs.launch(away, "train")
    assert same(away, here) and completion.attempt == 2
    assert completion.measured["resumed_at_step"] > 0, json.dumps(completion.measured)


def _delete_after_a_checkpoint(core: Any, namespace: str, quiet: Any) -> None:
    pod = wait_for(lambda: next(iter(core.list_namespaced_pod(namespace).items), None))
    name = pod.metadata.name
    wait_for(lambda: "is kept for another attempt" in log_of(core, name, namespace), seconds=240)
    core.delete_namespaced_pod(name, namespace, grace_period_seconds=0)
