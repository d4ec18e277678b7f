"""A job of several nodes as an Indexed Job or a JobSet: taken by the API's own models, restricted, and the ranks are the indices."""

from __future__ import annotations

import json
from typing import Any

import pytest
from api_schema import read
from pod_standard import restricted

from autoglm_ops.cluster.indexed import manifests
from autoglm_ops.cluster.pod import pods
from autoglm_ops.contracts.cluster import JobSpec, Resources
from autoglm_ops.contracts.placement import KubernetesPlace
from autoglm_ops.errors import UsageError

KEY = "ab" * 32
PLACE = KubernetesPlace(
    images=("localhost/trainer:1",), secret="team-keys", queue="vision", tolerations=({"operator": "Exists"},)
)


def job(**more: Any) -> JobSpec:
    given = {
        "name": "train",
        "key": KEY,
        "attempt": 2,
        "image": "localhost/trainer:1",
        "store": "s3://models/x",
        "secrets": ("A",),
    }
    command = ("python", "-m", "autoglm_ops.cluster.remote", KEY)
    return JobSpec.model_validate(
        {"command": command, "resources": Resources(nodes=3, gpus=4), "deadline_seconds": 60, **given, **more}
    )


def test_an_indexed_job_is_one_attempt_of_all_nodes() -> None:
    service, whole = manifests("job", job(), PLACE)
    found = read(whole, "V1Job")
    assert (found.spec.completion_mode, found.spec.completions, found.spec.parallelism, found.spec.backoff_limit) == (
        "Indexed",
        3,
        3,
        0,
    )
    assert read(service, "V1Service").spec.cluster_ip == "None"
    template = whole["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert template["spec"]["subdomain"] == service["metadata"]["name"]
    assert restricted(template) == [] and template["spec"]["restartPolicy"] == "Never"


@pytest.mark.parametrize("form", ["job", "jobset"])
def test_the_pods_are_those_of_the_launcher_but_for_their_rank(form: str) -> None:
    whole = manifests(form, job(), PLACE)[-1]
    spec = whole["spec"] if form == "job" else whole["spec"]["replicatedJobs"][0]["template"]["spec"]
    made, ours = spec["template"]["spec"], pods(job(), PLACE)[0]["spec"]
    differ = [
        (one, other)
        for one, other in zip(made["containers"][0]["env"], ours["containers"][0]["env"], strict=True)
        if one != other
    ]
    path = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert differ == [
        (
            {"name": "AUTOGLM_NODE_RANK", "valueFrom": {"fieldRef": {"fieldPath": path}}},
            {"name": "AUTOGLM_NODE_RANK", "value": "0"},
        )
    ]
    same = made.keys() - {"containers", "subdomain"}
    assert {name: made[name] for name in same} == {name: ours[name] for name in same}


def test_a_queue_admits_the_whole_and_not_its_pods() -> None:
    for form in ("job", "jobset"):
        *_, whole = manifests(form, job(), PLACE)
        assert whole["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "vision"
        assert json.dumps(whole).count("kueue.x-k8s.io/queue-name") == 1
        assert "kueue.x-k8s.io/pod-group" not in json.dumps(whole)


def test_a_jobset_starts_nothing_again() -> None:
    [whole] = manifests("jobset", job(), PLACE)
    assert whole["spec"]["failurePolicy"] == {"maxRestarts": 0}
    [replicated] = whole["spec"]["replicatedJobs"]
    read({"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, "spec": replicated["template"]["spec"]}, "V1Job")


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(UsageError, match="pods, job, jobset"):
        manifests("cronjob", job(), PLACE)
    with pytest.raises(UsageError, match="shorter name"):
        manifests("job", job(name="a" * 31), PLACE)
