"""TrainOnKubernetes: what Airflow's KubernetesPodOperator makes of our pod is still restricted, and a form decides nothing about it (F27, F28)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

sys.path.append(str(Path(__file__).parents[1] / "unit" / "cluster"))
from pod_standard import restricted

from autoglm_airflow import pipeline, requests
from autoglm_airflow.operators import OpenRunOperator, StageOperator
from autoglm_airflow.pods import TrainOnKubernetes
from autoglm_ops.cluster.pod import pods
from autoglm_ops.contracts.cluster import JobSpec, Resources
from autoglm_ops.contracts.placement import KubernetesPlace

KEY = "cd" * 32


def rendered(operator: TrainOnKubernetes, pod: dict[str, Any]) -> dict[str, Any]:
    """The pod as the operator sends it."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
    from kubernetes.client import ApiClient

    operator.full_pod_spec = PodGenerator.deserialize_model_dict(pod)
    made: dict[str, Any] = ApiClient().sanitize_for_serialization(operator.build_pod_request_obj(dry_run=True))
    return made


def test_airflow_adds_labels_and_nothing_else() -> None:
    job = JobSpec(
        name="train", command=("python", "-m", "autoglm_ops.cluster.remote", KEY), key=KEY, attempt=2, image="localhost/t:1", store="s3://b/p",
        secrets=("AWS_SECRET_ACCESS_KEY",), environment={"A": "$(AWS_SECRET_ACCESS_KEY) {{ conn.x }}"}, resources=Resources(cpu=1, memory_gib=1),
    )  # fmt: skip
    place = KubernetesPlace(images=("localhost/t:1",), secret="keys", tolerations=({"key": "gpu", "operator": "Exists"},))
    [pod] = pods(job, place)
    made = rendered(TrainOnKubernetes(stage="train"), pod)
    assert restricted(made) == []
    assert (
        made["metadata"]["name"] == pod["metadata"]["name"]
        and pod["metadata"]["labels"].items() <= made["metadata"]["labels"].items()
    )
    [mine], [theirs] = pod["spec"]["containers"], made["spec"]["containers"]
    assert {key: theirs.get(key) for key in mine} == mine
    assert {key: made["spec"].get(key) for key in pod["spec"] if key != "containers"} == {
        key: value for key, value in pod["spec"].items() if key != "containers"
    }


def test_nothing_of_it_is_a_template() -> None:
    assert tuple(TrainOnKubernetes(stage="train").template_fields) == ()


def test_it_is_durable_and_deletes_its_pod() -> None:
    operator = TrainOnKubernetes(stage="train")
    assert operator.durable and operator.on_finish_action.value == "delete_pod" and operator.retries == 4
    assert TrainOnKubernetes(stage="train", deferrable=True).deferrable


def test_the_deployment_decides_which_operator_a_stage_gets(monkeypatch: pytest.MonkeyPatch) -> None:
    assert pipeline._stage_operator("train") is StageOperator
    monkeypatch.setenv("AUTOGLM__CLUSTER__BACKEND", "kubernetes")
    assert pipeline._stage_operator("train") is TrainOnKubernetes and pipeline._stage_operator("gate") is StageOperator


def test_a_stage_that_needs_no_pod_runs_as_ever(world: Any, pulled: Callable[..., Any]) -> None:
    world.plan(pods={"train": None})
    context = pulled({"open_run": OpenRunOperator(task_id="open_run").work(pulled(), {})})
    assert TrainOnKubernetes(stage="train").execute(context)["stage"] == "train"
    assert [words[1] for words in world.calls("runs") if words[1] != "open"] == ["send", "exec"]


def test_the_record_decides_after_the_pod(world: Any, pulled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A pod that Airflow calls a success, without a record that says so, is none (apache/airflow #73006)."""
    from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator

    monkeypatch.setattr(KubernetesPodOperator, "trigger_reentry", lambda self, context, event: None)
    world.plan(exits={"train": [3]})
    context = pulled({"open_run": OpenRunOperator(task_id="open_run").work(pulled(), {})})
    with pytest.raises(AirflowFailException, match="told to end with 3"):
        TrainOnKubernetes(stage="train").trigger_reentry(context, {"status": "success"})
    assert world.calls("runs", "take") and not world.calls("runs", "exec")


@pytest.mark.parametrize(
    "key", ["cluster", "cluster.kubernetes.images", "cluster.kubernetes", "cluster.secrets", "cluster.environment", "cluster.teams.a", "store.uri", "store", "tracking.uri"]
)  # fmt: skip
def test_a_form_may_not_set_what_the_deployment_owns(pulled: Callable[..., Any], key: str) -> None:
    context = pulled(params={"as_of": None, "set": {key: json.dumps({"images": ["evil"]})}, "promote": None, "tune": None})
    with pytest.raises(AirflowFailException, match="set by the deployment"):
        requests.of(context, {}, {}, None)
