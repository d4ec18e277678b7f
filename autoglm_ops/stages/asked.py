"""What one run asks for itself, by `--set` or a form's field: over its team's settings, and refused before any work where it cannot be had.

params.yaml may name GPUs that only its cluster has, and still run on a laptop by its backend alone; a run that asks for them may not.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.training import HardwareSpec
from autoglm_ops.errors import SettingsError
from autoglm_ops.planning import settle_precision
from autoglm_ops.settings import Settings, resolve
from autoglm_ops.stages import snapshot
from autoglm_ops.training.models import why_not_int8

_ASKED = "--set "


def settled(tree: dict[str, Any], sources: dict[str, str], origin: Path = Path()) -> Settings:
    """The settings of a run; `tree` is changed where its team had another word. `origin`: what a model's folder is relative to.

    Raises SettingsError or UsageError.
    """
    resolve(tree, sources)
    _over_the_team(tree.get("cluster", {}), sources)
    settings = resolve(tree, sources)
    hardware = snapshot.training_hardware(settings)
    _require_gpus(settings, sources, hardware)
    settle_precision(settings.train.precision, hardware)
    _require_int8(settings, origin)
    return settings


def _require_int8(settings: Settings, origin: Path) -> None:
    why_not = why_not_int8(settings.model.name, origin) if settings.train.quantization == "int8" else None
    if why_not is not None:
        raise SettingsError(f"train.quantization = int8, but {why_not}; leave it at none")


def _over_the_team(cluster: Mapping[str, Any], sources: dict[str, str]) -> None:
    """What the run set of `cluster` replaces what its team has set of the same: the narrower word counts. The team's quota holds all the same."""
    team = cluster.get("team", "default")
    for key in [key for key, source in sources.items() if source.startswith(_ASKED) and key.startswith("cluster.")]:
        *parents, leaf = key.split(".")[1:]
        asked, own = cluster, cluster.get("teams", {}).get(team, {})
        for parent in parents:
            asked, own = asked[parent], own.get(parent, {})
        if leaf in own:
            own[leaf] = asked[leaf]
            sources[".".join(["cluster.teams", team, *parents, leaf])] = sources[key]


def _require_gpus(settings: Settings, sources: Mapping[str, str], hardware: HardwareSpec) -> None:
    cluster = settings.cluster.of_team(settings.cluster.team)
    gpus, kind = cluster.resources.gpus, cluster.resources.gpu
    here, asked = cluster.backend == "local", [key for key, source in sources.items() if source.startswith(_ASKED)]
    if here and gpus > hardware.gpus and "cluster.resources.gpus" in asked:
        raise SettingsError(
            f"cluster.resources.gpus = {gpus}, but cluster.backend is local and this machine has {hardware.gpus or 'no'} GPUs; ask for "
            "fewer, or for none; kubernetes and slurm are the backends that may have more"
        )
    if (here or not gpus) and kind and "cluster.resources.gpu" in asked:
        why = (
            "says nothing on this machine, whose GPUs are seen" if gpus else "is a kind of GPU, and cluster.resources.gpus is 0"
        )
        raise SettingsError(f"cluster.resources.gpu = {kind!r} {why}; leave it out, or say how many on a cluster")
