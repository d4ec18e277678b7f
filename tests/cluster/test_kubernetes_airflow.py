"""TrainOnKubernetes against a real cluster, deferred: the task leaves its worker, the trigger sees the pod end, a new worker takes over."""

from __future__ import annotations

import asyncio
import re
import subprocess
import time
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from away_workspace import placed
from cluster_parts import wait_for
from opened_run import RUN

from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.contracts.record import Completion


def context(info: RunInfo, number: int) -> dict[str, Any]:
    ti = SimpleNamespace(
        dag_id="daily_retrain", run_id="r", task_id="train", try_number=number, max_tries=4, map_index=-1, log_url="http://log", start_date=datetime.now(UTC),
        xcom_pull=lambda task_ids: info.model_dump(mode="json"), xcom_push=lambda key, value: None,
    )  # fmt: skip
    return {
        "ti": ti,
        "run_id": "r",
        "dag": SimpleNamespace(dag_id="daily_retrain"),
        "dag_run": SimpleNamespace(run_id="r", conf={}),
    }


def deferred(info: RunInfo, number: int) -> Any:
    """What the task asks the triggerer for."""
    from airflow.sdk.exceptions import TaskDeferred

    from autoglm_airflow.pods import TrainOnKubernetes

    with pytest.raises(TaskDeferred) as asked:
        TrainOnKubernetes(stage="train", deferrable=True, kubernetes_conn_id=None).execute(context(info, number))
    return asked.value


def woken(asked: Any) -> dict[str, Any]:
    """The trigger's event, as the triggerer gets it: it is made anew from what Airflow stores."""

    async def first() -> dict[str, Any]:
        path, values = asked.trigger.serialize()
        async for event in type(asked.trigger)(**values).run():
            return dict(event.payload)
        raise AssertionError(path)

    return asyncio.run(first())


def test_a_deferred_task_is_woken_and_takes_over(info: RunInfo, core: Any, namespace: str) -> None:
    from autoglm_airflow.pods import TrainOnKubernetes

    asked = deferred(info, 1)
    assert deferred(info, 1).trigger.pod_name == asked.trigger.pod_name, "a worker that was killed finds the pod again"
    event = woken(asked)
    done = TrainOnKubernetes(stage="train", kubernetes_conn_id=None).trigger_reentry(context(info, 1), event)
    assert (done["stage"], done["cached"]) == ("train", False)
    record = Completion.read(Path(info.workspace) / "completed" / "train.json")
    assert record.exit == 0 and (Path(info.workspace) / "dvc.lock").exists(), "taken over, and committed to DVC"
    wait_for(lambda: not core.list_namespaced_pod(namespace).items)
    again = TrainOnKubernetes(stage="train", kubernetes_conn_id=None).execute(context(info, 2))
    assert again["stage"] == "train" and not core.list_namespaced_pod(namespace).items, "done work needs no pod"


def test_a_deleted_pod_is_tried_again_under_the_next_number(info: RunInfo, core: Any, namespace: str) -> None:
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from autoglm_airflow.pods import TrainOnKubernetes

    asked = deferred(info, 1)
    core.delete_namespaced_pod(asked.trigger.pod_name, namespace, grace_period_seconds=0)
    wait_for(lambda: not core.list_namespaced_pod(namespace).items)
    with pytest.raises(AirflowException, match="deleted: somebody removed the pod") as raised:
        TrainOnKubernetes(stage="train", kubernetes_conn_id=None).trigger_reentry(context(info, 1), woken(asked))
    assert not isinstance(raised.value, AirflowFailException), "so Airflow tries again"
    record = Completion.read(Path(info.workspace) / "completed" / "train.json")
    assert record.exit == 75 and record.reasons[0].startswith("deleted:")
    assert deferred(info, 2).trigger.pod_name == asked.trigger.pod_name[:-1] + "2"


NOWHERE = "127.0.0.1:1/nobody/nothing:1"
BAD = {
    "image": ({"image": NOWHERE, "images": [NOWHERE]}, 2, f"image: {NOWHERE} cannot be had"),
    "secret": ({"secret": "nobodys-keys"}, 2, 'secret: .*secret "nobodys-keys" not found'),
    "gpu": ({"resources": {"gpus": 3}}, 75, "unschedulable: .*nvidia.com/gpu"),
    "memory": ({"resources": {"memory_gib": 0.05}}, 3, "oom: the job took more memory than 51Mi"),
}


@pytest.mark.usefixtures("untainted")
@pytest.mark.parametrize("bad", BAD)
def test_what_cannot_run_is_said_once_and_soon(info: RunInfo, core: Any, namespace: str, bad: str) -> None:
    """In the task's log, which ends with the exception, and in the run's record; the exit code says whether Airflow tries again."""
    from autoglm_airflow.pods import TrainOnKubernetes

    more, code, reason = BAD[bad]
    start = 60 if bad == "memory" else 8
    changed(info, start_seconds=start, **more)
    asked = deferred(info, 1)
    begun = time.monotonic()
    event = woken(asked)
    assert time.monotonic() - begun < start + 12, "the busy machine's share included"
    with pytest.raises(Exception, match=reason) as raised:
        TrainOnKubernetes(stage="train", kubernetes_conn_id=None).trigger_reentry(context(info, 1), event)
    refused(info, raised.value, code, reason)
    wait_for(lambda: not [pod for pod in core.list_namespaced_pod(namespace).items if not pod.metadata.deletion_timestamp])


@pytest.mark.usefixtures("untainted")
def test_a_worker_that_waits_itself_says_the_same(info: RunInfo) -> None:
    from autoglm_airflow.pods import TrainOnKubernetes

    more, code, reason = BAD["secret"]
    changed(info, start_seconds=8, **more)
    with pytest.raises(Exception, match=reason) as raised:
        TrainOnKubernetes(stage="train", deferrable=False, kubernetes_conn_id=None).execute(context(info, 1))
    refused(info, raised.value, code, reason)


def test_a_quota_is_said_before_there_is_a_pod(info: RunInfo, core: Any, namespace: str) -> None:
    from autoglm_airflow.pods import TrainOnKubernetes

    quota = {"metadata": {"name": "vision-quota"}, "spec": {"hard": {"requests.memory": "1Gi", "limits.memory": "1Gi"}}}
    core.create_namespaced_resource_quota(namespace, quota)
    wait_for(lambda: core.read_namespaced_resource_quota("vision-quota", namespace).status.hard)
    changed(info, resources={"memory_gib": 2})
    reason = "quota: vision-quota: limits.memory: asks 2Gi, in use is 0, the limit is 1Gi"
    with pytest.raises(Exception, match=reason) as raised:
        TrainOnKubernetes(stage="train", kubernetes_conn_id=None).execute(context(info, 1))
    refused(info, raised.value, 3, reason)


def changed(info: RunInfo, **more: Any) -> None:
    """Lays these over the run's `cluster`; a key of `cluster.kubernetes` over that."""
    path = Path(info.workspace) / "params.yaml"
    place = yaml.safe_load(path.read_text())["cluster"]["kubernetes"]
    place |= {key: more.pop(key) for key in ("images", "secret") if key in more}
    placed(Path(info.workspace), kubernetes=place, **more)


def refused(info: RunInfo, error: BaseException, code: int, reason: str) -> None:
    from airflow.sdk.exceptions import AirflowFailException

    assert isinstance(error, AirflowFailException) == (code != 75), "tried again only where that may help"
    record = Completion.read(Path(info.workspace) / "completed" / "train.json")
    assert record.exit == code and len(record.reasons) == 1 and re.match(reason, record.reasons[0])


@pytest.mark.slow
def test_a_stage_is_started_by_kubectl_and_taken_over(
    info: RunInfo, core: Any, namespace: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a Job, the form that a cluster with indices takes for several nodes: with one there is no index, and the rank is 0."""
    manifests = said(capsys, "runs", "send", RUN, "train", "--as", "job")
    kubectl = ["kubectl", "-n", namespace]
    subprocess.run([*kubectl, "apply", "--validate=false", "-f", "-"], input=manifests, text=True, check=True)
    subprocess.run([*kubectl, "wait", "--for=condition=complete", "job", "--all", "--timeout=240s"], check=True)
    said(capsys, "runs", "take", RUN, "train")
    assert Completion.read(Path(info.workspace) / "completed" / "train.json").exit == 0
    assert said(capsys, "runs", "send", RUN, "train", "--as", "job").strip() == "", "done work needs no Job"


def said(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    from autoglm_ops.cli.main import main

    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    answer = capsys.readouterr()
    assert not ended.value.code, answer.err
    return answer.out
