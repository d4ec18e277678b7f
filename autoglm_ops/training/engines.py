"""Which engine runs a plan: DeepSpeed where every rank computes the whole model, the mesh's where several compute one copy."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from autoglm_ops.training import activations, engine
from autoglm_ops.training.lm_job import LmJob
from autoglm_ops.training.objective import Objective

if TYPE_CHECKING:
    from autoglm_ops.training.mesh import MeshEngine

    AnyEngine = engine.DeepSpeedEngine | MeshEngine


def warm(job: LmJob) -> None:
    """Import what the engine of `job` will need, before ranks are forked."""
    if job.plan.split:
        import_module("autoglm_ops.training.mesh")
    else:
        engine.warm(job.deepspeed)


def made(module: Any, job: LmJob, objective: Objective, pulse: Callable[[], None]) -> AnyEngine:
    """The engine of this rank, around `module`. Raises Refused for a model that the plan cannot run."""
    module = activations.apply(module, job.plan)
    if not job.plan.split:
        return engine.DeepSpeedEngine(module, job.recipe, job.deepspeed, objective, pulse=pulse)
    from autoglm_ops.training.mesh import MeshEngine

    return MeshEngine(module, job.recipe, job.plan, job.deepspeed["optimizer"], objective, pulse)
