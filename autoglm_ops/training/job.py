"""What a group of ranks is asked to do, and how it says that it failed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.contracts.training import ParallelPlan, RecoveryRules, TrainingChange
from autoglm_ops.training.lm_job import LmJob
from autoglm_ops.training.models import ModelSpec
from autoglm_ops.training.recipe import Recipe


class Job(Record):
    """tokens: a tokenize output. out: where weights, config, training.json and measured.json go. scratch: for checkpoints.

    attempt: which start of the ranks this is. changes: what recoveries decided so far; a rank applies those its checkpoint has not seen.
    """

    tokens: str
    out: str
    scratch: str
    plan: ParallelPlan
    deepspeed: dict[str, Any]
    model: ModelSpec
    recipe: Recipe
    settings: dict[str, Any]
    quantization: Literal["none", "int8"] = "none"
    rules: RecoveryRules = RecoveryRules()
    attempt: int = 1
    changes: tuple[TrainingChange, ...] = ()

    def key(self) -> str:
        """What a checkpoint must agree on to be continued from. The layout is not part of it: states are put back onto any."""
        return digest_of({"model": self.model.model_dump(exclude={"folder"}, mode="json"), "recipe": self.recipe.fingerprint()})


AnyJob = Job | LmJob


def read_job(path: Path) -> AnyJob:
    """The job in the file `path`, of its own kind."""
    kind = json.loads(path.read_text(encoding="utf-8")).get("kind")
    return LmJob.read(path) if kind == "causal-lm" else Job.read(path)


class Failure(Record):
    """Why a rank ended. `kind` is a class of autoglm_ops.errors, the name of a foreign exception, or one of KINDS; `signal` what killed it."""

    rank: int
    kind: str
    exit: int
    message: str
    signal: int = 0


KINDS = ("killed", "exit", "hang", "never-joined", "group")
"""Ends that nothing was raised for: a signal, a bare exit code, no beat, no first step, the group's own process gone."""
