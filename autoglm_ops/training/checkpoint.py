"""Checkpoints of a run: one is saved, and the newest that verifies is found again, on all ranks the same one.

`publication` writes them rank by rank; what does not verify is named and passed over.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load

from autoglm_ops.contracts.training import CheckpointManifest
from autoglm_ops.errors import Tampered
from autoglm_ops.training import artifact, image
from autoglm_ops.training.kept import newest_first
from autoglm_ops.training.progress import Progress, Weights
from autoglm_ops.training.publication import Site, abandon, publish, running, take, write_part

log = logging.getLogger(__name__)

Add = Callable[[NDArray[np.float64]], NDArray[np.float64]]


class Kept(NamedTuple):
    """What a run is continued from. `layout` is how it lay on the ranks then."""

    progress: Progress
    state: Weights
    layout: str


def save(root: Path, key: str, engine: Any, progress: Progress) -> Path:
    """Take, write and publish at once, for one process. `key` says which run this is.

    Raises OSError when it could not be kept; what was there before is there still, and nothing is left of the attempt.
    """
    site = Site(root, key)
    try:
        write_part(site, take(site, progress, engine.live() | running(progress), image.Host()))
        return publish(site, progress.step)
    except (OSError, ValueError) as error:
        abandon(site, progress.step)
        raise error if isinstance(error, OSError) else OSError(errno.EIO, str(error)) from error


def newest(root: Path, key: str) -> tuple[Progress, Weights, Weights] | None:
    """(progress, no weights, state) of run `key`, for one process: `state` holds the weights."""
    found = newest_of_all(Site(root, key), lambda values: values)
    return None if found is None else (found.progress, {}, found.state)


def newest_of_all(site: Site, add: Add) -> Kept | None:
    """The newest that every rank can read its part of; every rank calls it. `add` sums over the ranks.

    A rank reads its own part where the layout is the one it was saved in, and all parts elsewhere.
    """
    below = 1 << 52
    while True:
        step, kept = _newest_below(site, below)
        steps = np.zeros(site.ranks)
        steps[site.rank] = step
        steps = add(steps)
        lowest = int(steps.min())
        if lowest < 0:
            return None
        if (steps == lowest).all():
            return kept
        below = lowest + 1  # somebody cannot read a newer one: nobody takes it


def _newest_below(site: Site, below: int) -> tuple[int, Kept | None]:
    for folder in newest_first(site.root):
        if int(folder.name.rpartition("-")[2]) >= below:
            continue
        try:
            kept = _read(folder, site)
        except (Tampered, OSError, ValueError, KeyError, TypeError) as error:
            log.warning("checkpoint %s is passed over: %s", folder.name, error)
            continue
        if kept is None:
            log.warning("checkpoint %s belongs to another model or recipe; it is passed over", folder.name)
            continue
        return kept.progress.step, kept
    return -1, None


def _read(folder: Path, site: Site) -> Kept | None:
    """Raises Tampered when a file of it is missing, altered or extra, or holds what no checkpoint may."""
    manifest = artifact.read_manifest(folder)
    there = {path.name for path in folder.iterdir()} - {artifact.MANIFEST}
    artifact.compare(folder, manifest, {name: manifest.files.get(name, "extra") for name in there})
    plain = json.loads(_checked(folder, manifest, "progress.json"))
    if plain.pop("key") != site.key:
        return None
    ranks, layout = plain.pop("ranks"), plain.pop("layout")
    same = (ranks, layout) == (site.ranks, site.layout)
    parts = {site.rank, site.rank if site.twin is None else site.twin} if same else set(range(ranks))
    loaded = [load(_weights(folder, manifest, f"rank-{rank:05d}.safetensors")) for rank in sorted(parts)]
    running = loaded[[*sorted(parts)].index(site.rank)] if same else None
    progress = _progress(plain, load(_weights(folder, manifest, "best.safetensors")))
    losses = [part.pop("running@0:loss") for part in loaded] if running is None else [running["running@0:loss"]]
    progress.running = float(torch.stack(losses).mean())
    state: Weights = {}
    for part in reversed(loaded):  # what several ranks hold is the first one's
        state |= part
    state.pop("running@0:loss", None)
    return Kept(progress, state, Site(folder, "", 0, ranks, layout).laid_out)


def _progress(plain: dict[str, Any], best: Weights) -> Progress:
    for name in ("losses", "validation"):
        plain[name] = [(int(step), float(value)) for step, value in plain[name]]
    return Progress(**plain, best=best)


def _weights(folder: Path, manifest: CheckpointManifest, name: str) -> bytes:
    content = _checked(folder, manifest, name)
    artifact.check_weights(name, content)
    return content


def _checked(folder: Path, manifest: CheckpointManifest, name: str) -> bytes:
    """The bytes of a file, once they are the ones its rank wrote."""
    if (folder / name).is_symlink():
        raise Tampered(f"{folder.name}/{name} is a link; a checkpoint holds plain files")
    content = (folder / name).read_bytes()
    if hashlib.sha256(content).hexdigest() != manifest.files.get(name):
        raise Tampered(f"{folder.name}/{name} was changed since it was written")
    return content
