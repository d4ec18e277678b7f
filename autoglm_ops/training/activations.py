"""Activation checkpointing (Chen et al. 2016, arXiv:1604.06174): layers computed again in the backward pass instead of kept."""

from __future__ import annotations

from typing import Any

from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.errors import Refused


def apply(module: Any, plan: ParallelPlan) -> Any:
    """`module` as `plan.checkpointing` says. Raises Refused for a model that cannot: a plan must run as it is, or not at all."""
    if not plan.checkpointing:
        return module
    if not getattr(module, "supports_gradient_checkpointing", False):
        raise Refused(f"{type(module).__name__} cannot compute activations again, and the plan counts on it; take another plan")
    if hasattr(module, "peft_config"):  # frozen inputs carry no gradient, and a checkpointed block needs one
        module.enable_input_require_grads()
    module.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    return module
