"""Where on a Kubernetes cluster a team's jobs go, and what they may be: `cluster.kubernetes` of params.yaml, and what a pod is rendered from."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

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
