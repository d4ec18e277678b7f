"""What a group of ranks is asked when a causal language model is trained: `autoglm launch` (spec P5)."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from autoglm_ops.catalog import Catalog
from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.contracts.training import ParallelPlan, RecoveryRules, TrainingChange
from autoglm_ops.errors import UsageError
from autoglm_ops.training.lora import Lora
from autoglm_ops.training.recipe import Recipe

LOSSES = Catalog("loss", {"causal-lm": "autoglm_ops.training.objective:CausalLM"}, group="autoglm.losses")
"""Called with the label smoothing; see `objective.Objective`."""

OPTIMIZERS: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("AdamW", {}),
    "adam": ("Adam", {"adam_w_mode": False}),
    "sgd": ("SGD", {"momentum": 0.9}),
}


class CausalModel(Record):
    """A causal LM, fully said. `folder` is None for built-ins, whose configuration is `overrides`."""

    name: str
    folder: str | None
    overrides: dict[str, Any]
    vocabulary: int
    pad_id: int
    length: int
    lora: Lora | None = None

    def build(self, seed: int) -> Any:
        """The torch module in fp32; new weights, and new adapters, are a function of `seed`. Raises UsageError when tokens do not fit."""
        import torch

        from autoglm_ops.training import lora
        from autoglm_ops.training.config import TrainerConfig
        from autoglm_ops.training.models import ModelSpec, build
        from autoglm_ops.training.sources import module_of

        if self.folder is None:
            given = self.model_dump(include={"name", "folder", "overrides", "vocabulary", "pad_id"})
            module = build(ModelSpec(**given, max_length=self.length, labels=()), seed, "causal-lm")
        else:
            module = module_of(TrainerConfig(model=self.folder, task="causal-lm", seed=seed))
        known = int(module.get_input_embeddings().num_embeddings)
        if known < self.vocabulary:
            raise UsageError(
                f"model {self.name!r} knows {known} tokens and the tokenizer has {self.vocabulary}; set dataset.tokenizer to the model's own folder"
            )
        module.config.use_cache = False
        if self.lora is None:
            return module
        torch.manual_seed(seed)
        return lora.wrap(module, self.lora, "causal-lm")


class LmJob(Record):
    """rows: a folder with train/ and validation/ (see `packed`). out: for weights and records. scratch: for checkpoints."""

    kind: Literal["causal-lm"] = "causal-lm"
    rows: str
    out: str
    scratch: str
    plan: ParallelPlan
    deepspeed: dict[str, Any]
    model: CausalModel
    recipe: Recipe
    loss: str
    callbacks: tuple[tuple[str, dict[str, Any]], ...] = ()
    deadline: float | None = None
    """Seconds of training after which the run is stopped."""
    data: str = ""
    """Digest of the rows."""
    peak_flops: float = 0.0
    """Of all devices a second, as their maker states it; 0 where nobody does. Metrics alone read it."""
    rules: RecoveryRules = RecoveryRules()
    attempt: int = 1
    changes: tuple[TrainingChange, ...] = ()

    def key(self) -> str:
        """What a checkpoint must agree on to be continued from. The layout is not part of it: states are put back onto any."""
        model = self.model.model_dump(mode="json", exclude={"folder"})
        facts = {"model": model, "recipe": self.recipe.fingerprint(), "data": self.data, "loss": self.loss}
        return digest_of({**facts, "precision": self.plan.precision, "optimizer": self.deepspeed["optimizer"]})


def optimizer_section(name: str, config: dict[str, Any]) -> dict[str, Any]:
    """DeepSpeed's `optimizer` for a train-config's name, from one made for AdamW."""
    kind, extra = OPTIMIZERS[name]
    known = ("lr", "weight_decay") if kind == "SGD" else ("lr", "weight_decay", "betas", "eps", "torch_adam")
    params = {key: value for key, value in config["optimizer"]["params"].items() if key in known}
    return {**config, "optimizer": {"type": kind, "params": {**params, **extra}}, "zero_allow_untested_optimizer": True}


def resident(scratch: str) -> Path:
    """Where the metrics of a job with this scratch folder are spooled: beside its checkpoints."""
    return Path(scratch).parent / "metrics.spool"
