"""Which model is meant, what shape it has (without torch), and the model itself (with transformers).

A name is a built-in GLM configuration, trained from scratch; a path is a folder of any Hugging Face sequence classifier:
config.json, and safetensors when it is to be continued. Code in a folder is never run and pickles are never opened.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm_ops.catalog import Catalog
from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.record import Record
from autoglm_ops.contracts.training import ModelShape
from autoglm_ops.errors import BadData, UsageError

Config = dict[str, Any]


def glm_tiny() -> Config:
    """For tests and the smallest machines."""
    return {"hidden_size": 64, "layers": 1, "heads": 4, "dropout": 0.0}


def glm_small() -> Config:
    """The default: half a million parameters over a character vocabulary.

    One layer: with a second, a step takes fifteen times as long (see `readout`), and it gained nothing on 13,000 reviews. No dropout inside attention, which would keep
    torch from its fast CPU kernel; `train.token_dropout` regularises instead.
    """
    return {"hidden_size": 128, "layers": 1, "heads": 4, "dropout": 0.0}


def glm_base() -> Config:
    """For a GPU, or patience."""
    return {"hidden_size": 512, "layers": 8, "heads": 8, "dropout": 0.1}


def glm_large() -> Config:
    """For several GPUs: 268 M parameters beside the embeddings."""
    return {"hidden_size": 1024, "layers": 24, "heads": 16, "dropout": 0.1}


BUILTIN = Catalog(
    "model",
    {f"glm-{size}": f"autoglm_ops.training.models:glm_{size}" for size in ("tiny", "small", "base", "large")},
    group="autoglm.models",
)


INT8_FAMILIES = frozenset({"bert", "glm", "glm4", "llama", "qwen2", "qwen3"})
"""`model_type` of the folders that may be published as int8: each is trained, made int8 and read again in a test."""


def why_not_int8(name: str, origin: Path) -> str | None:
    """Why `model.name` cannot be published as int8 on this machine; None where it can, or where what is named is wrong anyhow."""
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"torch computes with int8 on x86 processors alone, and this machine is {platform.machine()}"
    try:
        kind = "glm" if name in BUILTIN.names() else read_config(origin / name).get("model_type")
    except BadData:
        return None
    known = ", ".join(sorted(INT8_FAMILIES))
    return None if kind in INT8_FAMILIES else f"model.name = {name!r} is of the family {kind!r}, and it is proven for {known}"


class ModelSpec(Record):
    """A model, fully said: what `build` makes is a function of this and the seed. `folder` is None for built-ins."""

    name: str
    folder: str | None
    overrides: Config
    vocabulary: int
    pad_id: int
    max_length: int
    labels: tuple[str, ...]

    @classmethod
    def of(cls, model: Mapping[str, Any], meta: TokenMeta, origin: Path) -> ModelSpec:
        """From the `model` section of the settings and the tokens it will read. Raises UsageError on an unknown name."""
        overrides = {key: value for key, value in model.items() if key != "name" and value is not None}
        name = str(model["name"])
        folder = origin / name
        local = folder.is_dir() and name not in BUILTIN.names()
        if not local and ("/" in name or name.startswith(".")):
            raise UsageError(
                f"model.name = {name!r} is no folder here ({folder}) and no built-in ({', '.join(BUILTIN.names())}); nothing is "
                "downloaded from a hub: save the model to a folder and name that"
            )
        if not local:
            overrides = {**BUILTIN.get(name)(), **overrides}
        return cls(
            name=name,
            folder=str(folder) if local else None,
            overrides=overrides,
            vocabulary=meta.vocabulary,
            pad_id=meta.pad_id,
            max_length=meta.max_length,
            labels=meta.labels,
        )


def glm_config(spec: ModelSpec) -> Config:
    """Keyword arguments of transformers' GlmConfig. Raises UsageError when hidden size and heads do not go together."""
    hidden, heads, layers = (int(spec.overrides[key]) for key in ("hidden_size", "heads", "layers"))
    if hidden % (4 * heads):  # rotary embedding turns pairs within half of a head
        raise UsageError(
            f"model.hidden_size = {hidden} must be a multiple of 4 × model.heads = {4 * heads}; change one of them"
        )
    return {
        "vocab_size": spec.vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads,
        "head_dim": hidden // heads,
        "attention_dropout": float(spec.overrides["dropout"]),
        "max_position_embeddings": spec.max_length,
        "pad_token_id": spec.pad_id,
        "eos_token_id": spec.pad_id,
        "use_cache": False,
        **_labels(spec),
    }


def shape_of(spec: ModelSpec) -> ModelShape:
    """The shape, without importing torch. Raises UsageError or BadData when a folder's config.json does not say it."""
    config = glm_config(spec) if spec.folder is None else read_config(Path(spec.folder))
    hidden = _first(config, "hidden_size", "d_model", "dim", "n_embd")
    layers = _first(config, "num_hidden_layers", "n_layers", "n_layer", "encoder_layers")
    heads = _first(config, "num_attention_heads", "n_heads", "n_head", "encoder_attention_heads")
    inner = int(config.get("intermediate_size") or config.get("hidden_dim") or 4 * hidden)
    wide = int(config.get("num_key_value_heads") or heads) * int(config.get("head_dim") or hidden // heads)
    attention = 2 * hidden * hidden + 2 * hidden * wide + hidden + 2 * wide
    layer = attention + 3 * hidden * inner + 2 * hidden
    vocabulary = int(config.get("vocab_size") or spec.vocabulary)
    parameters = vocabulary * hidden + layers * layer + hidden + hidden * len(spec.labels)
    return ModelShape(
        parameters=parameters,
        hidden_size=hidden,
        intermediate_size=inner,
        layers=layers,
        heads=heads,
        max_length=spec.max_length,
    )


def build(spec: ModelSpec, seed: int, task: str = "classification") -> Any:
    """The torch module, fp32, on CPU, its new weights a function of `seed` alone. A causal LM is made of built-in names only."""
    import torch
    from transformers import GlmConfig, GlmForCausalLM

    from autoglm_ops.training.readout import GlmForSequenceClassification

    torch.manual_seed(seed)
    if spec.folder is not None:
        return _load(spec, Path(spec.folder))
    kind = GlmForCausalLM if task == "causal-lm" else GlmForSequenceClassification
    return kind(GlmConfig(**glm_config(spec)))


def preload(spec: ModelSpec) -> None:
    """Import what `build` will need for `spec`. What is wrong with a folder is left to `build` to say."""
    from transformers import AutoConfig

    from autoglm_ops.training.readout import (
        AutoModelForSequenceClassification,
    )  # with which what built-ins are made of is imported

    if spec.folder is None:
        return
    try:
        config = AutoConfig.from_pretrained(spec.folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError):
        return
    AutoModelForSequenceClassification._model_mapping.get(type(config), None)


def _load(spec: ModelSpec, folder: Path) -> Any:
    from transformers import AutoConfig

    from autoglm_ops.training.readout import AutoModelForSequenceClassification

    raw = read_config(folder)
    known = {"hidden_size", "layers", "heads"} & spec.overrides.keys()
    if known:
        raise UsageError(
            f"model.{sorted(known)[0]} cannot be changed for {spec.name!r}: its config.json fixes it; set it to null"
        )
    extra = _labels(spec) | ({"pad_token_id": spec.pad_id} if raw.get("pad_token_id") != spec.pad_id else {})
    if "dropout" in spec.overrides:
        names = [key for key in raw if key.endswith(("dropout", "dropout_prob")) and isinstance(raw[key], float | int)]
        extra |= dict.fromkeys(names, spec.overrides["dropout"])
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **extra)
    config.use_cache = False
    if config.vocab_size < spec.vocabulary:
        raise UsageError(
            f"model {spec.name!r} knows {config.vocab_size} tokens and the tokenizer has {spec.vocabulary}; set tokenize.tokenizer to the "
            "model's own folder"
        )
    if not any(folder.glob("*.safetensors")):
        return AutoModelForSequenceClassification.from_config(config, trust_remote_code=False)
    # A head for other labels does not fit ours: it starts anew, all else is continued.
    return AutoModelForSequenceClassification.from_pretrained(
        folder,
        config=config,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        ignore_mismatched_sizes=True,
        dtype="float32",
    )


def read_config(folder: Path) -> Config:
    """A model folder's config.json. Raises BadData when it cannot be read, wants code of its own to run, or has only pickled weights."""
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadData(
            f"model folder {folder.name!r} has no readable config.json: {error}; name a folder saved by save_pretrained"
        ) from error
    if config.get("quantization_config"):
        raise BadData(
            f"model folder {folder.name!r} holds rounded weights (quantization_config), which nothing can be trained from; name the one "
            "they were made of, published with train.quantization = none"
        )
    if "auto_map" in config:
        raise BadData(
            f"model folder {folder.name!r} wants its own code to be run (auto_map); convert it to a class transformers has"
        )
    pickled = sorted(file.name for pattern in ("*.bin", "*.pt", "*.pth", "*.pkl", "*.ckpt") for file in folder.glob(pattern))
    if pickled and not any(folder.glob("*.safetensors")):
        raise BadData(f"model folder {folder.name!r} holds {pickled[0]}, a pickle, and no safetensors; save it as safetensors")
    return dict(config)


def _labels(spec: ModelSpec) -> Config:
    if not spec.labels:
        return {}
    return {"id2label": dict(enumerate(spec.labels)), "label2id": {label: place for place, label in enumerate(spec.labels)}}


def _first(config: Config, *names: str) -> int:
    found = next((config[name] for name in names if isinstance(config.get(name), int)), None)
    if found is None:
        raise BadData(f"config.json says none of {', '.join(names)}; the planner needs one of them")
    return int(found)
