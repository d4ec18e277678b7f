"""A workspace up to `train`, as `runs exec` finds it: with its own code, small, trained in seconds."""

from __future__ import annotations

import shutil
from pathlib import Path

import yaml
from train_workspace import tuned, workspace

from autoglm_ops.settings import Settings, load

ROOT = Path(__file__).parents[2]


def prepared(root: Path, epochs: int = 4, **cluster: object) -> Path:
    """Two ranks, eight evaluations; `cluster` is laid over the defaults."""
    tuned(workspace(root, plan={"ranks": 2}, train={"epochs": epochs}))
    shutil.copytree(ROOT / "autoglm_ops", root / "autoglm_ops", ignore=shutil.ignore_patterns("__pycache__"))
    return placed(root, **cluster)


def placed(root: Path, **cluster: object) -> Path:
    path = root / "params.yaml"
    tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    path.write_text(yaml.safe_dump({**tree, "cluster": {**tree.get("cluster", {}), **cluster}}), encoding="utf-8")
    return root


def settings_of(root: Path) -> Settings:
    return load(root / "params.yaml", environ={})
