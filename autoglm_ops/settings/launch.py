"""The train-config of `autoglm launch` (spec P5): model, dataset, training, and what of the pipeline is on. Null is filled in, with a reason."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError

from autoglm_ops.errors import SettingsError
from autoglm_ops.settings.kinds import Count, Positive, Section, Seed, Share
from autoglm_ops.settings.layers import _explain, _flatten, _put, _read, known_keys, parse_yaml


class LaunchModel(Section):
    name: str = "glm-small"
    """A built-in configuration, or the folder of any Hugging Face causal language model: with weights it is trained on, without them anew."""
    seq_length: int | None = Field(default=None, ge=8, le=1 << 20)
    """Tokens of a row. Null: the model's own limit, at most 2048."""
    hidden_size: int | None = Field(default=None, ge=16, le=16384)
    layers: int | None = Field(default=None, ge=1, le=256)
    heads: int | None = Field(default=None, ge=1, le=256)
    dropout: Share | None = None


class LaunchDataset(Section):
    path: str
    """A file or folder here, s3://bucket/prefix or https://host/file."""
    tokenizer: str | None = None
    """glm-tokenizer is trained on the dataset; else a tokenizer's folder. Null: the model folder's own, or glm-tokenizer."""
    vocabulary: int = Field(default=8000, ge=300, le=200_000)
    """Token ids of a glm-tokenizer, at most."""
    format: Literal["auto", "text", "conversations"] = "auto"
    """Plain documents, or JSON Lines of messages (or instruction, input, output). Auto looks at the first line."""
    validation: float = Field(default=0.05, gt=0, lt=0.5)
    """Share of documents, by content hash, that the loss is validated on."""


class LaunchLora(Section):
    rank: Count = 8
    alpha: Positive = 16.0
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ()
    """Names of linear layers, such as q_proj; empty takes all but the output layer."""


class LaunchTraining(Section):
    batch_size: int | None = Field(default=None, ge=1, le=1 << 24)
    """Rows of the global batch, over all ranks and accumulation steps, exactly."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    optimizer: Literal["adamw", "adam", "sgd"] = "adamw"
    learning_rate: Positive | None = None
    epochs: Positive = 1.0
    max_steps: int | None = Field(default=None, ge=1)
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_share: Share = 0.1
    schedule: Literal["linear", "cosine"] = "cosine"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    gradient_clip: Positive = 1.0
    evaluations: Count = 3
    seed: Seed = 7
    lora: LaunchLora | None = None
    """Train adapters alone, on a pretrained model."""
    ranks: int | None = Field(default=None, ge=1)
    micro_batch: int | None = Field(default=None, ge=1)
    zero_stage: Literal[0, 1, 2, 3] | None = None
    tensor: int | None = Field(default=None, ge=1)
    """Ranks that share every layer of a copy of the model."""
    pipeline: int | None = Field(default=None, ge=1)
    """Stages that a copy's layers are laid out in, a rank each (times `tensor`)."""
    callbacks: tuple[str | dict[str, dict[str, Any]], ...] = ()
    """Names of callbacks, or name: {option: value}; other packages offer more under the entry point group autoglm.callbacks."""
    loss: str = "causal-lm"
    """What is minimised, by name; other packages offer more under the entry point group autoglm.losses."""


class LaunchPipeline(Section):
    data_flow: bool = True
    """Clean, deduplicate and version the raw text (section flow of params.yaml) before it is tokenised."""
    auto_parallel: bool = True
    """Let the planner lay the run out; off is one rank, ZeRO 0, a micro-batch of one row."""
    tuner: bool = True
    """Search the learning rate where the config leaves it open."""
    tuner_trials: Count = 4
    tuner_steps: Count = 12


class LaunchBudget(Section):
    seconds: Positive | None = None
    """A run whose estimate is longer is refused before it starts, and one that takes longer is stopped."""
    price_per_hour: float = Field(default=0.0, ge=0)
    """Of the machine; the estimate and the record then say money too."""


class LaunchConfig(Section):
    """All of train-config.yaml."""

    model: LaunchModel = LaunchModel()
    dataset: LaunchDataset
    training: LaunchTraining = LaunchTraining()
    pipeline: LaunchPipeline = LaunchPipeline()
    budget: LaunchBudget = LaunchBudget()


def load_launch(path: Path, overrides: tuple[str, ...] = ()) -> LaunchConfig:
    """Read and check. Raises SettingsError naming key, value, rule and file; for an unknown key, the nearest known one."""
    tree: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for key, value in _flatten(_read(path)):
        _put(tree, key, value, str(path))
        origin[key] = str(path)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise SettingsError(f"--set {text!r} must be KEY=VALUE, for example training.batch_size=64")
        _put(tree, key.strip(), parse_yaml(value, f"--set {key}"), f"--set {key}")
        origin[key.strip()] = f"--set {key}"
    return check_launch(tree, origin, str(path))


def check_launch(tree: Mapping[str, Any], origin: Mapping[str, str], where: str) -> LaunchConfig:
    """`tree` as a config."""
    try:
        return LaunchConfig.model_validate(tree)
    except ValidationError as error:
        raise SettingsError("\n".join(_said(item, origin, where) for item in error.errors())) from error


def _said(item: Mapping[str, Any], origin: Mapping[str, str], where: str) -> str:
    key = ".".join(map(str, item["loc"]))
    if item["type"] == "missing":
        return f"{key} ({where}) is missing; it is the one thing a launch cannot fill in" if key.startswith("dataset") else key
    if item["type"] != "extra_forbidden":
        return _explain(item, dict(origin) or {key: where})
    known = known_keys(LaunchConfig)
    near = get_close_matches(key, known, n=1, cutoff=0.5)
    source = origin.get(key, where)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(name for name in known if '.' in name)}"
    return f"{key} ({source}) is not a known key of a train-config; {hint}"
