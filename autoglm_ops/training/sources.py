"""What a trainer's `model` means, as a torch module: a built-in name, a folder, a configuration, or a module as it is."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from autoglm_ops.errors import UsageError
from autoglm_ops.training.config import TrainerConfig
from autoglm_ops.training.models import BUILTIN, ModelSpec, build, read_config


def module_of(config: TrainerConfig) -> Any:
    """The module `config.model` names, fp32; new weights are a function of `config.seed`. Nothing is downloaded, no code in a folder is run.

    Raises UsageError on an unknown name or a classifier without labels, BadData on a folder that cannot be trusted.
    """
    import torch

    model = config.model
    if isinstance(model, torch.nn.Module):
        return model
    if config.task == "classification" and not config.labels:
        raise UsageError("a classifier needs labels; set labels to the classes, in the order of their numbers")
    torch.manual_seed(config.seed)
    if isinstance(model, str | Path):
        return _named(config, str(model))
    if isinstance(model, Mapping):
        return _new(config, _configuration(model))
    if hasattr(model, "model_type"):
        return _new(config, model)
    raise UsageError(f"model is a {type(model).__name__}; it takes a name, a folder, a configuration or a torch module")


def _named(config: TrainerConfig, name: str) -> Any:
    folder = Path(name).expanduser()
    if name in BUILTIN.names() or not folder.is_dir():
        if "/" in name:
            raise UsageError(
                f"model = {name!r} is no folder here, and nothing is downloaded from a hub; save the model to a folder"
            )
        spec = ModelSpec(
            name=name,
            folder=None,
            overrides=BUILTIN.get(name)(),
            vocabulary=config.vocabulary,
            pad_id=0,
            max_length=config.max_length,
            labels=config.labels if config.task == "classification" else (),
        )
        return build(spec, config.seed, config.task)
    return _folder(config, folder)


def _folder(config: TrainerConfig, folder: Path) -> Any:
    from transformers import AutoConfig

    read_config(folder)
    found = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **_labels(config))
    _check_direction(config, found)
    if not any(folder.glob("*.safetensors")):
        return _new(config, found)
    return _auto(config).from_pretrained(
        folder,
        config=found,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        ignore_mismatched_sizes=config.task == "classification",  # a head for other labels starts anew
        dtype="float32",
    )


def _new(config: TrainerConfig, found: Any) -> Any:
    for name, value in _labels(config).items():
        setattr(found, name, value)
    _check_direction(config, found)
    return _auto(config).from_config(found, trust_remote_code=False)


def _configuration(given: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    if "model_type" not in given or "auto_map" in given:
        raise UsageError("a model configuration needs model_type, and may not ask for code of its own (auto_map)")
    try:
        return AutoConfig.for_model(**given)
    except ValueError as error:
        raise UsageError(f"model_type {given['model_type']!r} is not one transformers has: {str(error)[:120]}") from error


def _check_direction(config: TrainerConfig, found: Any) -> None:
    """transformers makes a causal LM of an encoder too, which sees the word it is to predict and learns to copy it."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES as MASKED

    forward_only = getattr(found, "is_decoder", False) or getattr(found, "is_encoder_decoder", False)
    if config.task == "causal-lm" and found.model_type in MASKED and not forward_only:
        raise UsageError(
            f"model_type {found.model_type!r} sees the words it is to predict; train it as a classifier, or take a decoder (glm, llama, qwen3, …)"
        )


def _auto(config: TrainerConfig) -> Any:
    from transformers import AutoModelForCausalLM

    from autoglm_ops.training.readout import AutoModelForSequenceClassification

    return AutoModelForCausalLM if config.task == "causal-lm" else AutoModelForSequenceClassification


def _labels(config: TrainerConfig) -> dict[str, Any]:
    if config.task == "causal-lm":
        return {}
    return {"id2label": dict(enumerate(config.labels)), "label2id": {label: n for n, label in enumerate(config.labels)}}
