"""A job as pods: pure, records in and manifests out (threats F27, F28).

Nothing is ever put together as text: each value has its own field, so no value can become another's. Kubernetes expands `$(NAME)` in
commands and environments, which would read a secret into a plain variable: every `$` is doubled. The pod meets the Pod Security
Standard "restricted" and holds no token, no host path and no privilege; secrets are references.
"""

from __future__ import annotations

import re
from typing import Any

from autoglm_ops.contracts.cluster import JobSpec
from autoglm_ops.contracts.placement import KubernetesPlace
from autoglm_ops.errors import Refused, UsageError

Manifest = dict[str, Any]
APP = "autoglm"
CONTAINER = "job"
KEY = "autoglm.key"
"""The annotation that holds the whole key: a label takes 63 characters, and a key has 64."""
TEAM = "autoglm.team"
"""The label that says whose pod or namespace it is."""
QUEUE = "kueue.x-k8s.io/queue-name"
"""The label that names a pod's queue where Kueue admits jobs."""
GROUP = "kueue.x-k8s.io/pod-group-name"
"""The label that Kueue knows the pods of one job by, so that it admits all of them or none."""
WORK = "/work"
GRACE_SECONDS = 30
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_OURS = re.compile(r"PATH|LD_.*|PYTHON.*|HOME|TMPDIR|AUTOGLM_(JOB|NODE).*")
_POD = re.compile(r"[a-z0-9]([a-z0-9-]{0,58}[a-z0-9])?")
_LABEL = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9]+([._:/-]+[a-zA-Z0-9]+)*_*(@sha256:[0-9a-f]{64})?")


def pods(job: JobSpec, place: KubernetesPlace) -> list[Manifest]:
    """One pod per node of the job, rank 0 first. Raises UsageError or Refused for what may not become a pod."""
    if job.key is None or job.store is None or job.store.startswith(("/", "file:")) or "://" not in job.store:
        raise UsageError(
            f"a pod of job {job.name} cannot reach the store {job.store!r}; set store.uri to s3://bucket/prefix, and name the keys in "
            "cluster.secrets"
        )
    if not _POD.fullmatch(job.handle):
        raise UsageError(f"{job.name[:80]!r} cannot be part of a pod's name: lower-case letters, digits and '-', at most 30")
    image = _allowed(job.image, place)
    return [_pod(job, place, image, rank) for rank in range(job.resources.nodes)]


def names(job: JobSpec) -> list[str]:
    """The pods' names: the handle, with the rank behind it where there are several."""
    count = job.resources.nodes
    return [job.handle if count == 1 else f"{job.handle}-{rank}" for rank in range(count)]


def _pod(job: JobSpec, place: KubernetesPlace, image: str, rank: int) -> Manifest:
    spec = {
        "restartPolicy": "Never",
        "serviceAccountName": place.service_account,
        "automountServiceAccountToken": False,
        "enableServiceLinks": False,
        "securityContext": {
            "runAsNonRoot": True, "runAsUser": place.user, "runAsGroup": place.user, "fsGroup": place.user,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "terminationGracePeriodSeconds": GRACE_SECONDS,
        "containers": [_container(job, place, image, rank)],
        "volumes": [_folder("work", place.scratch_gib), _folder("tmp"), {"name": "shm", "emptyDir": {"medium": "Memory"}}],
        "nodeSelector": dict(place.node_selector),
        "tolerations": [dict(item) for item in place.tolerations],
        "affinity": place.affinity,
        "priorityClassName": place.priority_classes.get(job.priority),
        "runtimeClassName": place.runtime_class,
        "imagePullSecrets": [{"name": place.pull_secret}] if place.pull_secret else None,
        "activeDeadlineSeconds": max(1, round(job.deadline_seconds)) if job.deadline_seconds else None,
    }  # fmt: skip
    metadata = {
        "name": names(job)[rank], "namespace": place.namespace, "labels": _labels(job, place, rank),
        "annotations": {KEY: job.key, **_grouped(job, place)},
    }  # fmt: skip
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": metadata,
        "spec": {k: v for k, v in spec.items() if v not in (None, {}, [])},
    }


def _container(job: JobSpec, place: KubernetesPlace, image: str, rank: int) -> Manifest:
    return {
        "name": CONTAINER,
        "image": image,
        "imagePullPolicy": "IfNotPresent",
        "command": [_literal(word) for word in job.command],
        "workingDir": WORK,
        "env": _environment(job, place, rank),
        "resources": _resources(job),
        "securityContext": {
            "allowPrivilegeEscalation": False, "privileged": False, "readOnlyRootFilesystem": True, "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "work", "mountPath": WORK}, {"name": "tmp", "mountPath": "/tmp"}, {"name": "shm", "mountPath": "/dev/shm"},  # noqa: S108
        ],
    }  # fmt: skip


def selector(job: JobSpec) -> str:
    """Which pods are of this job, whatever the attempt."""
    return f"app.kubernetes.io/name={APP},autoglm.job={(job.key or '')[:40]}"


def _labels(job: JobSpec, place: KubernetesPlace, rank: int) -> dict[str, str]:
    labels = {
        "app.kubernetes.io/name": APP,
        "autoglm.job": (job.key or "")[:40],
        "autoglm.attempt": str(job.attempt),
        "autoglm.stage": job.name,
        TEAM: job.team,
        "autoglm.rank": str(rank),
    }
    if place.queue:
        labels |= {QUEUE: place.queue, **({GROUP: job.handle} if job.resources.nodes > 1 else {})}
    return checked(labels)


def checked(labels: dict[str, str]) -> dict[str, str]:
    """The labels. Raises UsageError for a value that no API server takes."""
    for name, value in labels.items():
        if not _LABEL.fullmatch(value):
            raise UsageError(f"{value[:80]!r} cannot be the label {name}: letters, digits, '-', '_' and '.', at most 63")
    return labels


def _grouped(job: JobSpec, place: KubernetesPlace) -> dict[str, str]:
    """How many pods Kueue waits for, and that none of them is ever replaced: one that fails ends the attempt."""
    if not place.queue or job.resources.nodes == 1:
        return {}
    return {"kueue.x-k8s.io/pod-group-total-count": str(job.resources.nodes), "kueue.x-k8s.io/retriable-in-group": "false"}


def _environment(job: JobSpec, place: KubernetesPlace, rank: int) -> list[Manifest]:
    for name in (*job.environment, *job.secrets):
        if not _NAME.fullmatch(name) or _OURS.fullmatch(name):
            raise UsageError(
                f"{name[:80]!r} cannot be set for a job: letters, digits and '_', and neither the interpreter's nor our own"
            )
    if job.secrets and place.secret is None:
        raise UsageError(
            f"the job needs the secret {job.secrets[0]}, but cluster.kubernetes.secret names no Secret to take it from"
        )
    plain = {
        **job.surroundings, "HOME": WORK, "AUTOGLM_JOB_FOLDER": WORK,
        "AUTOGLM_NODES": str(job.resources.nodes), "AUTOGLM_NODE_RANK": str(rank),
    }  # fmt: skip
    return [
        *({"name": name, "value": _literal(value)} for name, value in sorted(plain.items()) if name not in job.secrets),
        {"name": "AUTOGLM_NODE_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        *({"name": name, "valueFrom": {"secretKeyRef": {"name": place.secret, "key": name}}} for name in job.secrets),
    ]


def _resources(job: JobSpec) -> Manifest:
    """Requests are limits: what a job may take is what was set aside for it, so no neighbour is squeezed (and none squeezes it)."""
    asked = job.resources
    amounts = {
        "cpu": None if asked.cpu is None else cores(asked.cpu),
        "memory": None if asked.memory_gib is None else memory(asked.memory_gib),
        "nvidia.com/gpu": str(asked.gpus) if asked.gpus else None,
    }
    found = {name: amount for name, amount in amounts.items() if amount is not None}
    return {"requests": found, "limits": found} if found else {}


def _folder(name: str, gib: float | None = None) -> Manifest:
    return {"name": name, "emptyDir": {} if gib is None else {"sizeLimit": memory(gib)}}


def cores(amount: float) -> str:
    """Processors as Kubernetes writes them: 2, 1500m."""
    parts = round(amount * 1000)
    return f"{parts}m" if parts % 1000 else str(parts // 1000)


def memory(gib: float) -> str:
    """GiB as Kubernetes writes them: 4Gi, 51Mi."""
    parts = round(gib * 1024)
    return f"{parts}Mi" if parts % 1024 else f"{parts // 1024}Gi"


def _literal(value: str) -> str:
    if "\0" in value:
        raise UsageError("a pod's command and environment hold no NUL")
    return value.replace("$", "$$")


def _allowed(image: str | None, place: KubernetesPlace) -> str:
    if not image:
        raise UsageError("cluster.image names no image; build docker/trainer.Dockerfile and name it there")
    if len(image) > 255 or not _IMAGE.fullmatch(image):
        raise UsageError(f"cluster.image = {image[:100]!r} is no image's name: REGISTRY/NAME:TAG or REGISTRY/NAME@sha256:…")
    repository, _, pinned = image.partition("@")
    if image in place.images or (pinned and (repository in place.images or not place.images)):
        return image
    allowed = ", ".join(place.images) or "any image that is pinned by @sha256"
    raise Refused(f"image: {image} is not among cluster.kubernetes.images ({allowed}); add it there, or pin its digest")
