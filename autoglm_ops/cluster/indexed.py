"""A job of several nodes as one object, where the cluster's own controllers are to start and place it: pure, like `pod`.

    job       an Indexed Job (Kubernetes 1.24 on) and the headless Service that names its pods
    jobset    a JobSet (jobset.x-k8s.io/v1alpha2), which makes its own Service; a Kueue queue admits either as a whole

The pods are those of `pod`, but for the rank, which is the completion index. Rank 0 still says in the store where to meet (`meeting`):
the names are for people and for network policies. One object is one attempt: nothing is started again under the same number, since what
an overtaken attempt leaves may not be published (threats F21).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from autoglm_ops.cluster.pod import GROUP, KEY, QUEUE, Manifest, pods
from autoglm_ops.contracts.cluster import JobSpec
from autoglm_ops.contracts.placement import KubernetesPlace
from autoglm_ops.errors import UsageError

KEPT_SECONDS = 86400
"""How long an ended job stays, with its pods' logs."""
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
_NAME = 63


def manifests(form: str, job: JobSpec, place: KubernetesPlace) -> list[Manifest]:
    """What `kubectl apply` takes to start the attempt: `pods`, or one of the forms above. Raises as `pod.pods` does, UsageError for a form nobody knows."""
    if form not in FORMS:
        raise UsageError(f"there is no form {form[:40]!r} of a job; write {', '.join(FORMS)}")
    return FORMS[form](job, place)


def indexed_job(job: JobSpec, place: KubernetesPlace) -> list[Manifest]:
    """The Service first: the pods' names are then there when they start."""
    template = _template(job, place)
    selector = {name: template["metadata"]["labels"][name] for name in ("autoglm.job", "autoglm.attempt")}
    service = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": _metadata(job, place, queued=False),
        "spec": {"clusterIP": "None", "publishNotReadyAddresses": True, "selector": selector},
    }
    template["spec"]["subdomain"] = job.handle
    spec = {**_spec(job, template), "ttlSecondsAfterFinished": KEPT_SECONDS}
    return [service, {"apiVersion": "batch/v1", "kind": "Job", "metadata": _metadata(job, place), "spec": spec}]


def jobset(job: JobSpec, place: KubernetesPlace) -> list[Manifest]:
    spec = {
        "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
        "failurePolicy": {"maxRestarts": 0},
        "ttlSecondsAfterFinished": KEPT_SECONDS,
        "replicatedJobs": [{"name": "node", "replicas": 1, "template": {"spec": _spec(job, _template(job, place))}}],
    }
    return [{"apiVersion": "jobset.x-k8s.io/v1alpha2", "kind": "JobSet", "metadata": _metadata(job, place), "spec": spec}]


FORMS: dict[str, Callable[[JobSpec, KubernetesPlace], list[Manifest]]] = {
    "pods": pods,
    "job": indexed_job,
    "jobset": jobset,
}


def _spec(job: JobSpec, template: Manifest) -> dict[str, Any]:
    nodes = job.resources.nodes
    return {"completionMode": "Indexed", "completions": nodes, "parallelism": nodes, "backoffLimit": 0, "template": template}


def _template(job: JobSpec, place: KubernetesPlace) -> Manifest:
    """Rank 0's pod without its name, its rank taken from its index."""
    longest = f"{job.handle}-node-0-{job.resources.nodes - 1}"
    if len(longest) > _NAME:
        raise UsageError(
            f"{longest!r} is longer than the {_NAME} letters that a pod's host name may have; give the job a shorter name"
        )
    first = pods(job, place)[0]
    labels = {name: value for name, value in first["metadata"]["labels"].items() if name not in ("autoglm.rank", QUEUE, GROUP)}
    [container] = first["spec"]["containers"]
    env = [_ranked(entry) for entry in container["env"]]
    return {
        "metadata": {"labels": labels, "annotations": {KEY: job.key}},
        "spec": {**first["spec"], "containers": [{**container, "env": env}]},
    }


def _ranked(entry: dict[str, Any]) -> dict[str, Any]:
    if entry["name"] != "AUTOGLM_NODE_RANK":
        return entry
    return {"name": entry["name"], "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}}


def _metadata(job: JobSpec, place: KubernetesPlace, *, queued: bool = True) -> dict[str, Any]:
    labels = dict(pods(job, place)[0]["metadata"]["labels"])
    for name in ("autoglm.rank", GROUP):
        labels.pop(name, None)
    if not queued:
        labels.pop(QUEUE, None)
    return {"name": job.handle, "namespace": place.namespace, "labels": labels, "annotations": {KEY: job.key}}
