"""What a group of ranks is asked to do, and how it says that it failed."""

from __future__ import annotations

from typing import Any

from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.training.models import ModelSpec
from autoglm_ops.training.recipe import Recipe


class Job(Record):
    """tokens: a tokenize output. out: where weights, config, training.json and measured.json go. scratch: for checkpoints."""

    tokens: str
    out: str
    scratch: str
    plan: ParallelPlan
    deepspeed: dict[str, Any]
    model: ModelSpec
    recipe: Recipe
    settings: dict[str, Any]

    def key(self) -> str:
        """What a checkpoint must agree on to be continued from."""
        return digest_of({"plan": self.plan.fingerprint(), "model": self.model.overrides, "recipe": self.recipe.fingerprint()})


class Failure(Record):
    """Why a rank ended. `kind` is a class of autoglm_ops.errors, or the name of a foreign exception."""

    rank: int
    kind: str
    exit: int
    message: str
