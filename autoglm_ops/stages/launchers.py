"""Which launcher `cluster.backend` names. A backend is a file in cluster/ and a line here."""

from __future__ import annotations

import sys

from autoglm_ops.catalog import Catalog
from autoglm_ops.cluster.local import LocalLauncher
from autoglm_ops.contracts.cluster import Launcher
from autoglm_ops.settings import Settings

BACKENDS = Catalog(
    "cluster.backend",
    {name: f"autoglm_ops.stages.launchers:{name}" for name in ("local", "kubernetes", "slurm")},
)


def open_launcher(settings: Settings) -> tuple[Launcher, str]:
    """The launcher, and what the Python interpreter is called where its jobs run. Raises UsageError for an unknown backend."""
    launcher: Launcher
    launcher, python = BACKENDS.get(settings.cluster.backend)(settings)
    return launcher, python


def local(settings: Settings) -> tuple[Launcher, str]:
    return LocalLauncher(), sys.executable


def slurm(settings: Settings) -> tuple[Launcher, str]:
    from autoglm_ops.cluster.slurm import SlurmLauncher

    cluster = settings.cluster
    return SlurmLauncher(cluster.slurm), cluster.slurm.python or ("python" if cluster.image else sys.executable)


def kubernetes(settings: Settings) -> tuple[Launcher, str]:
    from autoglm_ops.cluster.kubernetes import KubernetesLauncher

    cluster = settings.cluster
    return KubernetesLauncher(cluster.kubernetes, cluster.start_seconds), cluster.kubernetes.python
