"""TrainOnKubernetes: what Airflow's KubernetesPodOperator makes of our pod is still restricted, and a form decides nothing about it (F27, F28)."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodLaunchTimeoutException, PodNotFoundException
from airflow.sdk.exceptions import AirflowException, AirflowFailException
from kubernetes.client.exceptions import ApiException

sys.path.append(str(Path(__file__).parents[1] / "unit" / "cluster"))
from pod_standard import restricted

from autoglm_airflow import pipeline, requests
from autoglm_airflow import pods as pods_module
from autoglm_airflow.datasets import BuildOperator, BuildTaskOperator, PlanBuildOperator
from autoglm_airflow.operators import OpenRunOperator, StageOperator
from autoglm_airflow.pods import TrainOnKubernetes
from autoglm_airflow.podwatch import PodTrigger, Watched, WatchedAsync
from autoglm_ops.cluster.patience import FAREWELL_SECONDS, Farewell
from autoglm_ops.cluster.pod import pods
from autoglm_ops.contracts.cluster import JobSpec, Resources
from autoglm_ops.contracts.placement import KubernetesPlace

KEY = "cd" * 32


def rendered(operator: TrainOnKubernetes, pod: dict[str, Any], run: str = "manual__1") -> dict[str, Any]:
    """The pod as the operator sends it in a DAG run of that id."""
    from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
    from kubernetes.client import ApiClient

    ti = SimpleNamespace(dag_id="daily_retrain", task_id="train", map_index=-1, try_number=1)
    context: Any = {"ti": ti, "run_id": run, "dag": SimpleNamespace()}
    operator.full_pod_spec = PodGenerator.deserialize_model_dict(pod)
    made: dict[str, Any] = ApiClient().sanitize_for_serialization(operator.build_pod_request_obj(context, dry_run=True))
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


def test_a_deferred_task_is_waited_for_by_our_patience_and_knows_its_cluster_again() -> None:
    """The trigger is made anew from what Airflow stores, and the task from its trigger's event."""
    from airflow.sdk.exceptions import TaskDeferred
    from kubernetes.client import V1ObjectMeta, V1Pod

    posted = {"context": "vision", "start_seconds": 42.0}
    operator = TrainOnKubernetes(stage="train", kubernetes_conn_id=None)
    operator._place(posted)
    operator.pod = V1Pod(metadata=V1ObjectMeta(name="p", namespace="n"))
    with pytest.raises(TaskDeferred) as asked:
        operator.invoke_defer_method()
    path, values = asked.value.trigger.serialize()
    assert path == "autoglm_airflow.podwatch.PodTrigger" and isinstance(PodTrigger(**values).pod_manager, WatchedAsync)
    assert (values["schedule_timeout"], values["cluster_context"], values["trigger_kwargs"]) == (
        42,
        "vision",
        {"posted": posted},
    )


@pytest.mark.parametrize(
    ("error", "state", "code", "word"),
    [
        (AirflowException("it took too long"), "lost", 75, "lost: the pod left no result: it took"), (PodNotFoundException("p"), "lost", 75, "deleted:"),
        (ApiException(status=422, reason="x"), "refused", 3, "invalid:"), (ApiException(status=500, reason="x"), "lost", 75, "lost:"),
    ],
)  # fmt: skip
def test_what_the_api_says_without_a_pod_has_a_word(error: Exception, state: str, code: int, word: str) -> None:
    found = pods_module._fault(error)
    assert (found.state, found.exit) == (state, code) and found.reason.startswith(word)


def test_a_refusal_by_the_api_server_keeps_its_own_words() -> None:
    error = ApiException(status=403, reason="Forbidden")
    error.body = json.dumps(
        {"message": "pods is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2"}
    )
    found = pods_module._fault(error)
    assert found.exit == 75 and found.reason.startswith("quota: q refuses the pod: it asks pods=1")


@pytest.mark.parametrize(
    "key", ["cluster", "cluster.kubernetes.images", "cluster.kubernetes", "cluster.secrets", "cluster.environment", "cluster.teams.a", "cluster.image", "store.uri", "store", "tracking.uri"]
)  # fmt: skip
def test_a_form_may_not_set_what_the_deployment_owns(pulled: Callable[..., Any], key: str) -> None:
    context = pulled(params={"as_of": None, "set": {key: json.dumps({"images": ["evil"]})}, "promote": None, "tune": None})
    with pytest.raises(AirflowFailException, match="set by the deployment"):
        requests.of(context, {}, {}, None)


def test_a_pod_on_a_lost_node_is_given_up_under_airflow_too() -> None:
    """Kubernetes calls it Running for good: neither a worker nor the triggerer had ever stopped waiting for it."""
    now, pod = 0.0, pod_of("train-1")
    watched, trigger = Watched(kube_client=SimpleNamespace(read_namespaced_pod=lambda *_: pod)), PodTrigger.__new__(PodTrigger)
    trigger.base_container_name = "job"
    for one in (watched, trigger):
        vars(one)["_farewell"] = Farewell(None, lambda: now)

    def look() -> None:
        assert watched.read_pod(pod) is pod
        trigger.define_pod_container_state(pod)

    look()
    now = 1e6
    look()
    pod.metadata.deletion_timestamp = "2026-01-14T05:00:00Z"
    look()
    now += FAREWELL_SECONDS + 1
    for again in (lambda: watched.read_pod(pod), lambda: trigger.define_pod_container_state(pod)):
        with pytest.raises(PodLaunchTimeoutException, match="node: the pod was told to stop") as raised:
            again()
        assert pods_module._fault(raised.value).exit == 75


class Cluster:
    """The pods of a namespace by name, as the operator asks for them."""

    def __init__(self, *names: str) -> None:
        self.pods = {name: pod_of(name) for name in names}
        self.created: list[str] = []

    def get_pod(self, name: str, namespace: str) -> Any:
        if name not in self.pods:
            raise ApiException(status=404)
        return self.pods[name]

    def list_namespaced_pod(self, **_: Any) -> Any:
        return SimpleNamespace(items=list(self.pods.values()))

    def create_pod(self, pod: Any) -> Any:
        if pod.metadata.name in self.pods:
            raise ApiException(status=409, reason="Conflict")
        self.created.append(pod.metadata.name)
        return pod

    def get(self, key: str) -> Any:
        """Airflow's memory of a task."""
        return {"name": "train-1", "namespace": "n"}

    def set(self, key: str, value: Any) -> None:
        pass


def pod_of(name: str) -> Any:
    from kubernetes.client import V1ObjectMeta, V1Pod, V1PodStatus

    return V1Pod(
        metadata=V1ObjectMeta(name=name, namespace="n", labels={"try_number": "1"}), status=V1PodStatus(phase="Running")
    )


@pytest.mark.parametrize(
    ("there", "created"), [(("train-1",), ["train-2"]), (("train-2",), []), (("train-1", "train-2"), []), ((), ["train-2"])]
)
def test_a_task_attends_the_pod_of_its_attempt_and_no_other(there: tuple[str, ...], created: list[str]) -> None:
    """An older attempt's pod, which a lost node keeps "Running" for good, had been taken for it; one of another DAG run had not been found."""
    cluster, operator = Cluster(*there), TrainOnKubernetes(stage="train", kubernetes_conn_id=None)
    vars(operator).update(hook=cluster, client=cluster, pod_manager=cluster, full_pod_spec=pod_of("train-2"))
    ti = SimpleNamespace(dag_id="d", task_id="train", map_index=-1, try_number=2)
    context: Any = {"ti": ti, "run_id": "r", "dag": SimpleNamespace(), "task_state_store": cluster}
    assert operator.get_or_create_pod(pod_of("train-2"), context).metadata.name == "train-2"
    assert cluster.created == created


@pytest.mark.parametrize(
    "key", [" cluster.kubernetes.images", "\tstore.uri", "\u00a0cluster.secrets", 'cluster={"kubernetes": {"images": ["evil:1"]}} #', ""]
)  # fmt: skip
def test_a_key_that_would_be_read_as_another_is_refused(pulled: Callable[..., Any], key: str) -> None:
    """Where a key is read, blanks around it go, and what is behind a '=' is a value."""
    context = pulled(params={"as_of": None, "set": {key: ["evil:1"]}, "promote": None, "tune": None})
    with pytest.raises(AirflowFailException, match="is no setting's name"):
        requests.of(context, {}, {}, None)


@pytest.mark.parametrize("operator", [PlanBuildOperator(task_id="plan"), BuildTaskOperator(phase="read")], ids=["plan", "read"])
@pytest.mark.parametrize("key", ["store.uri", "cluster.slurm", " cluster.kubernetes.images"])
def test_the_form_of_a_build_may_not_either(world: Any, pulled: Callable[..., Any], operator: BuildOperator, key: str) -> None:
    """Its shards are jobs, too."""
    context = pulled(xcoms={"plan": {"work": "w"}}, params={"location": None, "set": {key: "x"}})
    with pytest.raises(AirflowFailException, match=r"set by the deployment|no setting's name"):
        operator.execute(context)
    assert world.calls() == []
