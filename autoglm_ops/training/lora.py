"""Low-rank adapters (Hu et al. 2021, arXiv:2106.09685): made, saved alone, matched with their base, and folded in. Owner of `peft`.

A saved adapter says which base it was learned on, by digest: on any other it would load without a word and answer nonsense.
"""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path
from typing import Any, Literal, cast

from pydantic import Field

from autoglm_ops.contracts.record import Record
from autoglm_ops.errors import Tampered, UsageError
from autoglm_ops.training import artifact

WEIGHTS = "adapter_model.safetensors"
Task = Literal["causal-lm", "classification"]


class Lora(Record):
    """The update of each target matrix is `alpha / rank` times a product of two thin matrices of `rank` columns."""

    rank: int = Field(default=8, ge=1)
    alpha: float = Field(default=16.0, gt=0)
    dropout: float = Field(default=0.0, ge=0, lt=1)
    targets: tuple[str, ...] = ()
    """Names of linear layers, such as q_proj; empty takes all but the output layer."""


class AdapterNote(Record):
    """`lora.json` in an adapter's folder. base_sha256: `base_digest` of the model it belongs to."""

    lora: Lora
    task: Task
    base_sha256: str


def wrap(module: Any, lora: Lora, task: Task) -> Any:
    """`module` with new adapters that change nothing yet; only they (and a classifier's head) are trainable. Random as torch is seeded.

    Raises UsageError when no layer has a target's name.
    """
    from peft import LoraConfig, get_peft_model

    kind = "CAUSAL_LM" if task == "causal-lm" else "SEQ_CLS"
    targets = list(lora.targets) or "all-linear"
    config = LoraConfig(
        r=lora.rank, lora_alpha=cast(int, lora.alpha), lora_dropout=lora.dropout, target_modules=targets, task_type=kind
    )
    try:
        return get_peft_model(module, config)
    except ValueError as error:
        linear = sorted({name.rsplit(".", 1)[-1] for name, part in module.named_modules() if type(part).__name__ == "Linear"})
        raise UsageError(f"lora.targets = {lora.targets!r} fit no layer; this model has {', '.join(linear)}") from error


def base_digest(module: Any) -> str:
    """sha256 over names, types, shapes and bytes of the weights under the adapters, in the order of their names."""
    base = {_own_name(name): tensor for name, tensor in module.named_parameters() if _of_base(name)}
    hashed = hashlib.sha256()
    for name in sorted(base):
        tensor = base[name].detach().cpu().contiguous()
        hashed.update(f"{name}\t{tensor.dtype}\t{tuple(tensor.shape)}\n".encode())
        hashed.update(memoryview(_bytes(tensor)))
    return hashed.hexdigest()


def save(module: Any, folder: Path, lora: Lora, task: Task) -> str:
    """Publish the adapters alone as `folder` (see `artifact.publish`); returns the digest of the weights file.

    adapter_config.json is for other tools; `load` reads lora.json.
    """
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    staged = folder.with_name(f".{folder.name}.staged")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    tensors = get_peft_model_state_dict(module, save_embedding_layers=False)  # "auto" asks a hub about the base
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, staged / WEIGHTS)
    module.peft_config["default"].base_model_name_or_path = None  # where the base was read from is this machine's business
    module.peft_config["default"].save_pretrained(str(staged))
    AdapterNote(lora=lora, task=task, base_sha256=base_digest(module)).write(staged / "lora.json")
    manifest = artifact.publish(staged, folder, architecture=f"LoRA of {_class(module)}", labels=(), max_length=0)
    return manifest.files[WEIGHTS]


def load(base: Any, folder: Path) -> Any:
    """The adapters in `folder` on `base`, ready to answer. Raises Tampered when a byte changed, or when they belong to another base."""
    from peft import set_peft_model_state_dict
    from safetensors.torch import load_file

    artifact.verify(folder)
    note = AdapterNote.read(folder / "lora.json")
    module = wrap(base, note.lora, note.task)
    found = base_digest(module)
    if found != note.base_sha256:
        raise Tampered(
            f"the adapter {folder.name} was learned on a base with digest {note.base_sha256[:16]} and this one has {found[:16]}; "
            "load the base it was trained on"
        )
    set_peft_model_state_dict(module, load_file(folder / WEIGHTS))
    return module.eval()


def merged(module: Any) -> Any:
    """The base with the adapters folded into its weights: no adapter left, equal answers to rounding. `module` is used up."""
    return module.merge_and_unload(safe_merge=True)


def _of_base(name: str) -> bool:
    return "lora_" not in name and "modules_to_save" not in name and "original_module" not in name


def _own_name(name: str) -> str:
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def _bytes(tensor: Any) -> Any:
    import torch

    return tensor.reshape(-1).view(torch.uint8).numpy()


def _class(module: Any) -> str:
    return type(module.get_base_model()).__name__
