"""`autoglm plan`: a model by name or path and a machine, here or described, to every plan that fits; the last one is kept beside it."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from autoglm_ops.contracts.training import HardwareSpec, ModelShape, PlanSurvey
from autoglm_ops.errors import BadData, UsageError
from autoglm_ops.planning import MODELS, changes, described, shape_of_config, survey
from autoglm_ops.settings import Settings
from autoglm_ops.training.models import BUILTIN, ModelSpec, glm_config

Task = Literal["classification", "causal-lm"]


@dataclass(frozen=True)
class Asked:
    """What a person asks to plan; None takes what params.yaml says."""

    model: str | None = None
    task: Task = "classification"
    batch_size: int | None = None
    max_length: int | None = None
    precision: str | None = None


def look(asked: Asked, settings: Settings, hardware: HardwareSpec, origin: Path) -> PlanSurvey:
    """Survey the plans. Relative paths are of `origin`. Raises UsageError or BadData for a model that is not known or not readable."""
    name = asked.model or settings.model.name
    shape = _shape(name, asked, settings, origin)
    return survey(
        name,
        asked.task,
        shape,
        hardware,
        batch_size=asked.batch_size or settings.train.batch_size,
        precision=asked.precision or settings.train.precision,
    )


def keep(found: PlanSurvey, home: Path) -> list[str]:
    """Compare with the last survey of the same model, then replace it. Returns what changed, a line each."""
    path = kept(found.model, home)
    said = changes(PlanSurvey.read(path) if path.exists() else None, found)
    found.write(path)
    return said


def kept(model: str, home: Path) -> Path:
    """Where the last survey of `model` lies, if there was one."""
    return home / "plans" / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', model).strip('-.') or 'model'}.json"


def machine(gpu: str | None, gpus: int | None, nodes: int, here: HardwareSpec) -> HardwareSpec:
    """The hardware asked for: described GPUs, this machine's CPUs for `cpu`, else this machine as it is.

    Raises UsageError for a kind of GPU without a number, or nodes of what cannot have several.
    """
    if gpus and gpu != "cpu":
        return described(gpu or "h100-80g", gpus=gpus, nodes=nodes)
    if gpu not in (None, "cpu"):
        raise UsageError(f"--gpu {gpu} describes a kind, and --gpus says how many there are per node; give both")
    if gpus or nodes > 1:
        raise UsageError(f"--gpus {gpus or 0} --nodes {nodes}: CPU ranks stay on one machine; leave both out, or name a --gpu")
    return here.model_copy(update={"gpus": 0, "gpu_memory_gib": 0, "gpu_name": ""}) if gpu == "cpu" else here


def _shape(name: str, asked: Asked, settings: Settings, origin: Path) -> ModelShape:
    length = asked.max_length or settings.tokenize.max_length
    labels = len(settings.data.labels or ()) or 2
    return shape_of_config(_config(name, settings, length, origin), task=asked.task, max_length=length, labels=labels)


def _config(name: str, settings: Settings, length: int, origin: Path) -> Mapping[str, Any]:
    if name in BUILTIN.names():
        return {"model_type": "glm", **glm_config(_builtin(name, settings, length))}
    if name in MODELS:
        return MODELS[name]
    path = origin / name
    if path.is_dir():
        path /= "config.json"
    if not path.is_file():
        known = ", ".join((*BUILTIN.names(), *MODELS))
        raise UsageError(
            f"--model {name!r} is no folder or config.json here and no known name ({known}); nothing is asked of a hub: save the model's "
            "config.json and name that"
        )
    return _read(path)


def _builtin(name: str, settings: Settings, length: int) -> ModelSpec:
    """The built-in with the vocabulary it may have at most: the tokenizer that says it exactly is not trained yet."""
    changed = {key: value for key, value in settings.model.model_dump(exclude={"name"}).items() if value is not None}
    return ModelSpec(
        name=name,
        folder=None,
        overrides={**BUILTIN.get(name)(), **changed},
        vocabulary=settings.tokenize.vocabulary,
        pad_id=0,
        max_length=length,
        labels=(),
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise BadData(f"{path} is no readable config.json: {error}; name one that save_pretrained wrote") from error
    if not isinstance(config, dict):
        raise BadData(f"{path} holds a {type(config).__name__} where a model's config is an object of keys and values")
    if "auto_map" in config:
        raise BadData(f"{path} wants its own code to be run (auto_map); convert the model to a class transformers has")
    return config
