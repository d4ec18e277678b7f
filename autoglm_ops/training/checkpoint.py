"""Checkpoints in scratch: a whole run's state as safetensors and JSON, published like a model, continued from the newest that verifies."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import shutil
from pathlib import Path

from safetensors.torch import load_file
from safetensors.torch import save as dump

from autoglm_ops.errors import Tampered
from autoglm_ops.training import artifact
from autoglm_ops.training.loop import Engine
from autoglm_ops.training.progress import Progress, Weights

log = logging.getLogger(__name__)

KEEP = 2
_PLAIN = ("step", "samples", "tokens", "best_step", "best_score", "losses", "validation", "seconds", "scale", "notes")


def save(root: Path, key: str, engine: Engine, progress: Progress) -> Path:
    """Write `root/step-<n>`, whole or not at all, and drop all but the newest KEEP. `key` says which run this is.

    Every byte is read back before the older ones go: a disk that took less than it said is an OSError here, not a surprise later.
    Raises OSError when it could not be kept; what was there before is there still, and nothing is left of the attempt.
    """
    target = root / f"step-{progress.step:09d}"
    staged = root / f".staged-{progress.step}"
    parts: dict[str, Weights] = {"weights": engine.weights(), "optimizer": engine.state(), "best": progress.best}
    plain = {name: getattr(progress, name) for name in _PLAIN}
    try:
        shutil.rmtree(staged, ignore_errors=True)
        staged.mkdir(parents=True)
        for name, tensors in parts.items():
            _write(staged / f"{name}.safetensors", dump({key: tensor.contiguous() for key, tensor in tensors.items()}))
        _write(staged / "progress.json", (json.dumps({"key": key, **plain}, sort_keys=True) + "\n").encode())
        artifact.publish(staged, target, architecture="checkpoint", labels=(), max_length=0)
        artifact.verify(target)
    except (OSError, Tampered) as error:
        for left in (staged, target):
            shutil.rmtree(left, ignore_errors=True)
        if isinstance(error, OSError):
            raise
        raise OSError(errno.EIO, f"what was written was not what is read: {error}") from error
    _retain(root)
    return target


def newest(root: Path, key: str) -> tuple[Progress, Weights, Weights] | None:
    """(progress, weights, optimizer state) of the newest checkpoint of run `key` that verifies, or None. What does not verify is named and passed over."""
    for folder in _newest_first(root):
        try:
            artifact.verify(folder)
            plain = json.loads((folder / "progress.json").read_text(encoding="utf-8"))
        except (Tampered, OSError, ValueError) as error:
            log.warning("checkpoint %s is passed over: %s", folder.name, error)
            continue
        if plain.pop("key") != key:
            log.warning("checkpoint %s belongs to another plan or recipe; it is passed over", folder.name)
            continue
        for name in ("losses", "validation"):
            plain[name] = [(int(step), float(value)) for step, value in plain[name]]
        progress = Progress(**plain, best=load_file(folder / "best.safetensors"))
        return progress, load_file(folder / "weights.safetensors"), load_file(folder / "optimizer.safetensors")
    return None


def _retain(root: Path) -> None:
    """Drop all but the newest KEEP. The new one is there by now: what goes wrong here has not lost it."""
    try:
        for old in _newest_first(root)[KEEP:]:
            shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        log.warning("old checkpoints in %s stay until the next one: %s", root.name, error)


def _write(path: Path, content: bytes) -> None:
    """`publish` syncs it, and lists what it finds: so what it finds must be what was meant."""
    path.write_bytes(content)
    if hashlib.sha256(content).digest() != hashlib.sha256(path.read_bytes()).digest():
        raise OSError(errno.EIO, f"{path.name} was not written whole")


def _newest_first(root: Path) -> list[Path]:
    return sorted(root.glob("step-*"), reverse=True) if root.is_dir() else []
