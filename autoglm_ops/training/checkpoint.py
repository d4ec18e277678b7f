"""Checkpoints in scratch: a whole run's state as safetensors and JSON, published like a model, continued from the newest that verifies."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

from safetensors.torch import load_file, save_file

from autoglm_ops.contracts.record import write_text
from autoglm_ops.errors import Tampered
from autoglm_ops.training import artifact
from autoglm_ops.training.loop import Engine
from autoglm_ops.training.progress import Progress, Weights

log = logging.getLogger(__name__)

KEEP = 2
_PLAIN = ("step", "samples", "tokens", "best_step", "best_score", "losses", "validation", "seconds", "scale", "notes")


def save(root: Path, key: str, engine: Engine, progress: Progress) -> Path:
    """Write `root/step-<n>`, whole or not at all, and drop all but the newest KEEP. `key` says which run this is."""
    target = root / f"step-{progress.step:09d}"
    staged = root / f".staged-{progress.step}"
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    parts: dict[str, Weights] = {"weights": engine.weights(), "optimizer": engine.state(), "best": progress.best}
    for name, tensors in parts.items():
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, staged / f"{name}.safetensors")
    plain = {name: getattr(progress, name) for name in _PLAIN}
    write_text(staged / "progress.json", json.dumps({"key": key, **plain}, sort_keys=True) + "\n")
    artifact.publish(staged, target, architecture="checkpoint", labels=(), max_length=0)
    for old in _newest_first(root)[KEEP:]:
        shutil.rmtree(old, ignore_errors=True)
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


def _newest_first(root: Path) -> list[Path]:
    return sorted(root.glob("step-*"), reverse=True) if root.is_dir() else []
