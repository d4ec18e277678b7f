"""A job of several nodes as an Indexed Job or a JobSet: taken by the API's own models, restricted, and the ranks are the indices."""

from __future__ import annotations

import json
from functools import reduce
from operator import getitem
from typing import Any

import pytest
from api_schema import read, read_jobset
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
    read_jobset(whole)
    assert whole["spec"]["failurePolicy"] == {"maxRestarts": 0}
    [replicated] = whole["spec"]["replicatedJobs"]
    read({"apiVersion": "batch/v1", "kind": "Job", "metadata": {}, "spec": replicated["template"]["spec"]}, "V1Job")


def test_whatever_a_team_may_set_a_jobset_takes() -> None:
    affinity = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "zone", "operator": "Exists"}]}]}}}  # fmt: skip
    place = KubernetesPlace(
        images=("localhost/trainer:1",), secret="team-keys", queue="vision", node_selector={"zone": "a"}, affinity=affinity, runtime_class="gvisor",
        tolerations=({"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"},), pull_secret="pull", scratch_gib=1.5,
        priority_classes={"normal": "team-normal"}, service_account="jobs",
    )  # fmt: skip
    for resources in (Resources(nodes=2), Resources(nodes=9, gpus=8, cpu=1.5, memory_gib=0.5)):
        [whole] = manifests("jobset", job(resources=resources), place)
        read_jobset(whole)
        [replicated] = whole["spec"]["replicatedJobs"]
        asked = replicated["template"]["spec"]
        pod = asked["template"]["spec"]
        assert (asked["completions"], asked["parallelism"]) == (resources.nodes, resources.nodes)
        assert (pod["nodeSelector"], pod["affinity"], pod["tolerations"]) == (
            {"zone": "a"}, affinity, [{"key": "gpu", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}],
        )  # fmt: skip
        assert (pod["runtimeClassName"], pod["imagePullSecrets"], pod["priorityClassName"], pod["serviceAccountName"]) == (
            "gvisor", [{"name": "pull"}], "team-normal", "jobs",
        )  # fmt: skip
        limits = pod["containers"][0]["resources"].get("limits", {})  # without amounts the namespace's LimitRange gives them
        assert limits.get("nvidia.com/gpu") == (str(resources.gpus) if resources.gpus else None)


@pytest.mark.parametrize(
    ("at", "wrong"),
    [
        (("spec", "replicated_jobs"), []),
        (("spec", "suspended"), True),
        (("spec", "ttlSecondsAfterFinished"), "86400"),
        (("spec", "replicatedJobs", 0, "name"), None),
        (("spec", "replicatedJobs", 0, "replicas"), "1"),
        (("spec", "replicatedJobs", 0, "completions"), 3),
        (("spec", "failurePolicy", "maxRestarts"), "none"),
        (("spec", "failurePolicy", "backoffLimit"), 0),
        (("spec", "network", "enableDNSHostnames"), "yes"),
        (("spec", "network", "enableDnsHostnames"), True),
        (("spec", "replicatedJobs", 0, "template", "spec", "completionMode"), 1),
        (("spec", "replicatedJobs", 0, "template", "spec", "restartPolicy"), "Never"),
        (("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "containers", 0, "name"), None),
        (("spec", "replicatedJobs", 0, "template", "spec", "template", "spec", "containers", 0, "gpus"), 1),
        (("metadata", "labels"), ["vision"]),
    ],
)
def test_the_check_of_a_jobset_has_teeth(at: tuple[str | int, ...], wrong: object) -> None:
    """A wrong name, a wrong type and a missing name are each refused, at every depth. None: the field goes."""
    [whole] = json.loads(json.dumps(manifests("jobset", job(), PLACE)))
    place = reduce(getitem, at[:-1], whole)
    if wrong is None:
        del place[at[-1]]
    else:
        place[at[-1]] = wrong
    with pytest.raises(ValueError):
        read_jobset(whole)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(UsageError, match="pods, job, jobset"):
        manifests("cronjob", job(), PLACE)
    with pytest.raises(UsageError, match="shorter name"):
        manifests("job", job(name="a" * 31), PLACE)
