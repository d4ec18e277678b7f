"""A command of a workspace as a process of this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from autoglm_ops.cluster.local import LocalLauncher
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Resources
from autoglm_ops.settings import Settings
from autoglm_ops.settings.placement import Cluster
from autoglm_ops.stages import trials_away
from autoglm_ops.stages.workplace import home as home_of


def run(root: Path, name: str, command: tuple[str, ...], settings: Settings) -> JobStatus:
    """`autoglm COMMAND` with the workspace's own code, as a process of this machine called `name`.

    One that waits for jobs has no deadline: they have theirs, and may wait long for their places.
    """
    waits = command == ("stage", trials_away.STAGE) and trials_away.leave(settings)
    job = JobSpec(
        name=name,
        command=(sys.executable, "-m", "autoglm_ops", *command),
        workdir=str(root),
        environment={"AUTOGLM_CHECKOUT": str(root), "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", **_kernels(root)},
        deadline_seconds=None if waits else settings.cluster.deadline_seconds,
        resources=_limits(settings.cluster),
    )
    return LocalLauncher().run(job)


def _kernels(root: Path) -> dict[str, str]:
    """Where a stage keeps its compiled loops: where the environment says, or at home. In the workspace no other run would find them."""
    place = os.environ.get("NUMBA_CACHE_DIR") or home_of(root) / "cache" / "numba"
    return {"NUMBA_CACHE_DIR": str(place), "NUMBA_CACHE_LOCATOR_CLASSES": "autoglm_ops.data.kernels.BySource"}


def _limits(cluster: Cluster) -> Resources:
    """With a cluster, `cluster.resources` is what its nodes give; without one, what a stage may use here."""
    if cluster.backend != "local":
        return Resources()
    return cluster.resources.model_copy(update={"nodes": 1})
