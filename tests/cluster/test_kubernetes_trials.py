"""The trials of a round in pods beside each other, as an Airflow task of each asks for it: the scores of this machine, and what the next
round continues from comes back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import yaml
from away_workspace import ROOT
from cluster_parts import BARE, IMAGE, SECRETS, wait_for
from train_workspace import workspace

from autoglm_ops.contracts.record import Completion
from autoglm_ops.stages import runner, runs, trials
from autoglm_ops.tuning.rounds import Look

TUNE = {"trials": 4, "steps": 12, "parallel": 2, "looks": 2}


def test_trials_of_a_round_in_pods_at_once(
    namespace: str, s3: str, plain: dict[str, str], core: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTOGLM__STORE__URI", s3)
    here, away = (workspace(tmp_path / name, tune=TUNE) for name in ("here", "away"))
    for root in (here, away):
        runner.run_stage("plan", root)
    (away / "autoglm_ops").symlink_to(ROOT / "autoglm_ops")
    place = {
        "backend": "kubernetes", "image": IMAGE or BARE, "secrets": list(SECRETS), "environment": plain, "start_seconds": 120,
        "deadline_seconds": 240, "kubernetes": {"namespace": namespace, "images": [IMAGE or BARE], "secret": "team-keys"},
    }  # fmt: skip
    params = away / "params.yaml"
    params.write_text(yaml.safe_dump({**yaml.safe_load(params.read_text()), "cluster": place}))
    _refused_by_a_quota(core, namespace, away)
    for _ in range(2):  # the second round continues from what the first one's pods left
        looks = trials.ask(away)
        assert looks == trials.ask(here) and len(looks) == 2
        scores = _in_pods(away, looks, lambda: len(core.list_namespaced_pod(namespace).items))
        assert scores == [trials.train(here, look).score for look in looks] and None not in scores
    wait_for(lambda: not core.list_namespaced_pod(namespace).items)


def _refused_by_a_quota(core: Any, namespace: str, root: Path) -> None:
    """By its name, in the study's record: the trials of a round are all that runs then."""
    core.create_namespaced_resource_quota(namespace, {"metadata": {"name": "vision-quota"}, "spec": {"hard": {"pods": "0"}}})
    wait_for(lambda: core.read_namespaced_resource_quota("vision-quota", namespace).status.hard)
    look = trials.ask(root)[0]
    with pytest.raises(runs.StageFailedError, match="quota: vision-quota: pods: asks 1") as raised:
        trials.launch(root, look)
    record = Completion.read(runner.completion_path(root, "tune"))
    assert (record.exit, record.reasons) == (3, (str(raised.value),)) and "trial 0 was not trained" in record.reasons[0]
    core.delete_namespaced_resource_quota("vision-quota", namespace)
    wait_for(lambda: not core.list_namespaced_resource_quota(namespace).items)


def _in_pods(root: Path, looks: Sequence[Look], pods: Callable[[], int]) -> list[float | None]:
    """The scores of looks that are taken at once, each in a pod of its own."""
    with ThreadPoolExecutor(len(looks)) as pool:
        running = [pool.submit(trials.launch, root, look) for look in looks]
        wait_for(lambda: all(one.done() for one in running) or pods() == len(looks))
        assert not all(one.done() for one in running), "they were never there together"
        return [one.result().score for one in running]
