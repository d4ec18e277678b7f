"""Where on a Kubernetes cluster a team's jobs go, and what they may be: `cluster.kubernetes` of params.yaml, and what a pod is rendered
from; and how much of the cluster a team may have: `cluster.quota`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from autoglm_ops.contracts.record import Record

Label = Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")]
"""A name that Kubernetes takes for anything (RFC 1123)."""


class KubernetesPlace(Record):
    """images: what may run here: an image as it stands, or a repository, which then must be pinned by @sha256. Empty allows only
    `cluster.image` pinned by digest. secret: the Secret whose keys are named by `cluster.secrets`. queue: a Kueue local queue.
    """

    context: str | None = None
    """Of the kubeconfig; null is its current one, or the cluster this process runs in."""
    namespace: Label = "autoglm"
    images: tuple[str, ...] = ()
    python: str = "python"
    """The interpreter of the image."""
    secret: Label | None = None
    pull_secret: Label | None = None
    service_account: Label = "default"
    user: int = Field(default=10001, ge=1)
    """The user and group of the job; never root."""
    priority_classes: dict[str, Label] = {}
    """low, normal, high -> a PriorityClass; empty takes the cluster's default."""
    node_selector: dict[str, str] = {}
    tolerations: tuple[dict[str, Any], ...] = ()
    affinity: dict[str, Any] = {}
    runtime_class: Label | None = None
    queue: Label | None = None
    scratch_gib: float | None = Field(default=None, gt=0)
    """Room for the work folder; null is what the node has."""


class Quota(Record):
    """What a team may hold at once on Kubernetes, over all its pods (null is no bound), and one pod of it.

    An administrator applies it (`autoglm cluster manifests`), and then the cluster refuses what exceeds it.
    """

    pods: int | None = Field(default=20, ge=1)
    cpu: float | None = Field(default=16, gt=0)
    memory_gib: float | None = Field(default=64, gt=0)
    gpus: int | None = Field(default=4, ge=0)
    default_cpu: float = Field(default=1, ge=0.001)
    """Of a pod that names none (cluster.resources.cpu is null)."""
    default_memory_gib: float = Field(default=2, ge=2**-10)
    most_cpu: float | None = Field(default=8, gt=0)
    """Of one pod."""
    most_memory_gib: float | None = Field(default=32, gt=0)

    @model_validator(mode="after")
    def _in_order(self) -> Quota:
        for name in ("cpu", "memory_gib"):
            least = getattr(self, f"default_{name}")
            for bound in (f"most_{name}", name):
                most = getattr(self, bound)
                if most is not None and most < least:
                    raise ValueError(f"{bound} is {most:g}, less than default_{name}, {least:g}: no pod could start")
        return self
