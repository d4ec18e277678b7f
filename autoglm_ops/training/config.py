"""What AutoGLMTrainer is told, checked before any work starts."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from autoglm_ops.errors import SettingsError
from autoglm_ops.training.lora import Lora

GLM4_VOCABULARY = 151_552
"""Token ids of GLM-4's tokenizer: what a built-in model has room for unless `vocabulary` says otherwise."""


class TrainerConfig(BaseModel):
    """Everything but the data. `TrainerConfig.of` takes a dict or one of these."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True, protected_namespaces=())

    model: Any
    """A built-in name (glm-tiny, glm-large, …), a folder in transformers' layout, a configuration (an object, or a mapping with
    `model_type`), or a torch module whose output has `.logits`; the module itself is trained then, and not a copy."""
    task: Literal["causal-lm", "classification"] = "causal-lm"
    vocabulary: int = Field(default=GLM4_VOCABULARY, ge=2)
    """Token ids of a built-in model; any other model knows its own."""
    max_length: int = Field(default=2048, ge=8)
    """Positions of a built-in model."""
    labels: tuple[str, ...] = ()
    """The classes, for a classifier that is not a module already."""
    lora: Lora | None = None
    """Train low-rank adapters and leave the model's own weights as they are; None trains all weights."""
    learning_rate: float = Field(default=1e-3, gt=0)
    auto_lr: bool = False
    """Find the learning rate by a range test before the first step, instead of taking `learning_rate`."""
    weight_decay: float = Field(default=0.01, ge=0)
    warmup_share: float = Field(default=0.1, ge=0, lt=1)
    schedule: Literal["linear", "cosine"] = "cosine"
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    gradient_clip: float = Field(default=1.0, gt=0)
    precision: Literal["fp32", "bf16"] = "fp32"
    """bf16: products in bfloat16, weights and losses in float32. Twice as fast on GPUs and on CPUs with avx512_bf16 or AMX."""
    accumulation: int = Field(default=1, ge=1)
    """Loader batches per optimizer step."""
    epochs: float = Field(default=1.0, gt=0)
    max_steps: int | None = Field(default=None, ge=1)
    """A bound on `epochs`; needed when the loader has no length."""
    evaluations: int = Field(default=3, ge=1)
    """How often the validation loader is scored; the best of these is kept."""
    seed: int = Field(default=7, ge=0)
    out: Path | None = None
    """Where the best weights are published and checkpoints are kept; None leaves them in memory."""

    @classmethod
    def of(cls, given: TrainerConfig | Mapping[str, Any]) -> Self:
        """Check `given`. Raises SettingsError naming key, value and rule; for an unknown key, the nearest known one."""
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise SettingsError(f"a trainer takes a dict or a TrainerConfig, not {type(given).__name__}")
        for key in given:
            if key not in cls.model_fields:
                near = get_close_matches(str(key), cls.model_fields, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(cls.model_fields)}"
                raise SettingsError(f"unknown key {key!r} in the trainer's config; {hint}")
        try:
            return cls(**given)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(map(str, first["loc"])) or "the config"
            raise SettingsError(f"trainer config: {where} = {first.get('input')!r}: {first['msg']}") from error

    def told(self) -> dict[str, Any]:
        """As plain data, for records: `model` by name or class, `out` left away."""
        model = self.model if isinstance(self.model, str) else type(self.model).__name__
        return {**self.model_dump(mode="json", exclude={"model", "out"}), "model": model}
