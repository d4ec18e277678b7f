"""Checkpoints in scratch: a whole run's state as safetensors and JSON, every rank's part in one manifest, published whole or not at all.

Each rank writes and syncs its own part and leaves a note with its digest beside it; rank 0 waits for all notes on the shared disk and
then publishes (threats F14). No collective is needed, so a save can neither deadlock with training nor wait for it. A rank that could
not keep its part says so in its note, and that checkpoint is given up; the one before stays.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from autoglm_ops.contracts.record import sync, write_text
from autoglm_ops.contracts.training import CheckpointManifest
from autoglm_ops.training import artifact, image
from autoglm_ops.training.kept import name_of, newest_first
from autoglm_ops.training.progress import Progress, Weights

log = logging.getLogger(__name__)

KEEP = 2
PLAIN = (
    "step",
    "samples",
    "tokens",
    "best_step",
    "best_score",
    "losses",
    "validation",
    "seconds",
    "scale",
    "since",
    "notes",
    "changes",
)


@dataclass(frozen=True)
class Site:
    """Where a run keeps its checkpoints, and whose part this is.

    key: which run. layout: how state lies on the ranks; the same one continues bit for bit. attempt: its own name, so that parts of
    an attempt that died are never taken for this one's.
    """

    root: Path
    key: str
    rank: int = 0
    ranks: int = 1
    layout: str = "1 rank"
    attempt: str = "alone"
    twin: int | None = None
    """The rank whose part holds this one's state too; None is itself."""

    @property
    def laid_out(self) -> str:
        return f"{self.layout} on {self.ranks} ranks"

    def staged(self, step: int) -> Path:
        return self.root / f".staged-{step}-{self.attempt}"


@dataclass(frozen=True)
class Image:
    """One rank's part, in memory that training does not touch: its state, and on rank 0 the best weights and plain values."""

    step: int
    state: Weights
    best: Weights
    plain: dict[str, Any]


def take(site: Site, progress: Progress, live: Weights, host: image.Host) -> Image:
    """Copy what a checkpoint needs."""
    return Image(progress.step, host.copy(live), progress.best if site.rank == 0 else {}, plain_of(site, progress))


def plain_of(site: Site, progress: Progress) -> dict[str, Any]:
    """A copy of the plain values, of which rank 0 keeps all."""
    plain = {name: getattr(progress, name) for name in PLAIN} if site.rank == 0 else {}
    copied: dict[str, Any] = json.loads(json.dumps({"key": site.key, "ranks": site.ranks, "layout": site.layout, **plain}))
    return copied


def write_part(site: Site, part: Image) -> None:
    """Write this rank's part and its note. Raises OSError when it cannot be kept, ValueError when nothing should continue from it."""
    staged = site.staged(part.step)
    if site.rank == 0:
        for left in site.root.glob(".staged-*"):
            if left != staged:
                shutil.rmtree(left, ignore_errors=True)
    staged.mkdir(parents=True, exist_ok=True)
    files = {f"rank-{site.rank:05d}.safetensors": image.write(staged / f"rank-{site.rank:05d}.safetensors", part.state)}
    if site.rank == 0:
        files["best.safetensors"] = image.write(staged / "best.safetensors", part.best)
        content = (json.dumps(part.plain, sort_keys=True) + "\n").encode()
        files["progress.json"] = image.write_bytes(staged / "progress.json", content)
    leave_note(site, part.step, {"files": files})


def leave_note(site: Site, step: int, note: dict[str, Any]) -> None:
    """Tell rank 0 that this part is kept, or why not."""
    write_text(site.staged(step) / f"note-{site.rank:05d}.json", json.dumps(note) + "\n")


def publish(site: Site, step: int, *, patience: float = 60.0, given_up: Callable[[], bool] = lambda: False) -> Path:
    """On rank 0, its own part written: wait for the others' notes, then make them one checkpoint, and drop all but the newest KEEP.

    Raises OSError when a part was not kept, did not come within `patience` seconds, or the whole cannot be published. Nothing is left of
    it then.
    """
    staged, target = site.staged(step), site.root / name_of(step)
    files = _files_of_all(site, step, patience, given_up)
    for path in staged.glob("note-*.json"):
        path.unlink()
    missing = sorted(files.keys() ^ {path.name for path in staged.iterdir()})
    if missing:
        raise OSError(errno.EIO, f"{missing[0]} is not where its rank said it was")
    manifest = CheckpointManifest(files=files, architecture="checkpoint", labels=(), max_length=0)
    text = manifest.to_json()
    write_text(staged / artifact.MANIFEST, text)
    if (staged / artifact.MANIFEST).read_text(encoding="utf-8") != text:
        raise OSError(errno.EIO, "the manifest was not written whole")
    shutil.rmtree(target, ignore_errors=True)
    os.replace(staged, target)
    sync(site.root)
    _retain(site.root)
    return target


def abandon(site: Site, step: int) -> None:
    """Remove what is left of an attempt at `step`, published or not: whether a rename lasts is not known when its sync failed."""
    for left in (site.staged(step), site.root / name_of(step)):
        shutil.rmtree(left, ignore_errors=True)


def running(progress: Progress) -> Weights:
    """This rank's loss since the last evaluation, which no other rank knows."""
    return {"running@0:loss": torch.tensor(progress.running, dtype=torch.float64)}


def _files_of_all(site: Site, step: int, patience: float, given_up: Callable[[], bool]) -> dict[str, str]:
    files: dict[str, str] = {}
    until = time.monotonic() + patience
    for rank in range(site.ranks):
        path = site.staged(step) / f"note-{rank:05d}.json"
        while not path.exists():
            if time.monotonic() > until or given_up():
                raise OSError(errno.ETIMEDOUT, f"the part of rank {rank} did not come")
            time.sleep(0.01)
        note = json.loads(path.read_bytes())
        if "error" in note:
            raise OSError(errno.EIO, f"rank {rank} did not keep its part: {note['error']}")
        files |= note["files"]
    return files


def _retain(root: Path) -> None:
    """Drop all but the newest KEEP. The new one is there by now: what goes wrong here has not lost it."""
    try:
        for old in newest_first(root)[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        log.warning("old checkpoints in %s stay until the next one: %s", root.name, error)
