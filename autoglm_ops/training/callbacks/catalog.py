"""Callbacks by name: built-ins, and what other packages offer under the entry point group `autoglm.callbacks` (spec T6)."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm_ops.catalog import Catalog
from autoglm_ops.errors import UsageError
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.loop import Engine

CALLBACKS = Catalog(
    "callback",
    {
        "adaptive-rate": "autoglm_ops.training.callbacks.adaptive_rate:AdaptiveRate",
        "early-stop": "autoglm_ops.training.callbacks.early_stop:EarlyStop",
        "explosion-reset": "autoglm_ops.training.callbacks.explosion_reset:ExplosionReset",
        "json-lines": "autoglm_ops.training.callbacks.metrics:json_lines",
        "tensorboard": "autoglm_ops.training.callbacks.tensorboard:TensorBoard",
        "wandb": "autoglm_ops.training.callbacks.wandb:WandB",
    },
    group="autoglm.callbacks",
)


def made(name: str, options: Mapping[str, Any], engine: Engine, out: Path) -> Callback:
    """The callback called `name`. A factory may ask for `engine` and `out` (the run's folder) by these parameter names.

    Raises UsageError for an unknown name or option.
    """
    factory = CALLBACKS.get(name)
    known = inspect.signature(factory).parameters
    wrong = [key for key in options if key not in known]
    if wrong:
        settable = ", ".join(key for key in known if key not in ("engine", "out"))
        raise UsageError(f"callback {name!r} has no option {wrong[0]!r}; it has: {settable or 'none'}")
    offered = {"engine": engine, "out": out}
    found: Callback = factory(**options, **{key: value for key, value in offered.items() if key in known})
    return found
