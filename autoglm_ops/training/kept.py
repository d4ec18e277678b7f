"""Which checkpoints lie in a scratch folder, by name alone: no torch, no reading of what is in them."""

from __future__ import annotations

import os
from pathlib import Path

PREFIX = "step-"
ASIDE = "aside-"


def name_of(step: int) -> str:
    return f"{PREFIX}{step:09d}"


def newest_first(root: Path) -> list[Path]:
    """The published checkpoints, verified or not."""
    return sorted((path for path in root.glob(f"{PREFIX}*") if path.name[len(PREFIX) :].isdigit()), reverse=True)


def newest_step(root: Path) -> int:
    """Of the newest published checkpoint; 0 when there is none."""
    return next((int(path.name[len(PREFIX) :]) for path in newest_first(root)), 0)


def set_aside(root: Path, step: int) -> None:
    """Never continue from the checkpoint at `step` again; it stays for whoever wants to know why."""
    folder = root / name_of(step)
    if folder.is_dir():
        os.replace(folder, _free(root, step))


def _free(root: Path, step: int) -> Path:
    number = 1
    while (path := root / f"{ASIDE}{step:09d}-{number}").exists():
        number += 1
    return path
