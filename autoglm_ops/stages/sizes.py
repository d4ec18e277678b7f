"""Which sizes of a model a study may search: what fits the machine by the memory model of `planning`, under the plan of this run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.errors import UsageError
from autoglm_ops.planning import Layout, estimate, row_flops
from autoglm_ops.settings import resolve
from autoglm_ops.stages.base import Context
from autoglm_ops.stages.plan import exact_shape
from autoglm_ops.training.models import ModelSpec
from autoglm_ops.training.settings import overlay
from autoglm_ops.tuning import room

GIB = 1 << 30


def searched(space: Mapping[str, Any]) -> bool:
    """Whether the study changes how large the model is."""
    return any(key in space for key in room.SIZES)


def adapted_to(context: Context, raw: dict[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`tune.space` with its adaptive ranges as what fits. Raises as `room.adapted`."""
    return room.adapted(raw, present(context), fits(context))


def present(context: Context) -> dict[str, Any]:
    """The present value of each size; a null of the model section is its configuration's own."""
    meta = TokenMeta.read(context.output("tokenize", "meta.json"))
    own = ModelSpec.of(context.settings.model.model_dump(), meta, context.origin).overrides
    return {key: own[name] for key in room.SIZES if (name := key.removeprefix("model.")) in own}


def costs(context: Context, choices: Mapping[str, Any]) -> dict[str, float]:
    """What a model with these choices costs: parameters, and operations for one row of the longest."""
    meta, tree = TokenMeta.read(context.output("tokenize", "meta.json")), context.settings.model_dump(mode="json")
    shape = exact_shape(ModelSpec.of(resolve(overlay(tree, choices)).model.model_dump(), meta, context.origin))
    return {"latency": row_flops(shape), "size": float(shape.parameters)}


def fits(context: Context) -> room.Fits:
    """Whether a model with these choices fits a rank of the plan. A combination that makes no model does not."""
    plan = ParallelPlan.read(context.output("plan", "plan.json"))
    meta, tree = TokenMeta.read(context.output("tokenize", "meta.json")), context.settings.model_dump(mode="json")
    layout = Layout(
        plan.ranks,
        plan.micro_batch,
        plan.accumulation,
        plan.zero_stage,
        plan.precision,
        plan.device,
        plan.checkpointing,
        plan.offload,
    )

    def why_not(choices: Mapping[str, Any]) -> str:
        sizes = {key: value for key, value in choices.items() if key in room.SIZES}
        try:
            model = resolve(overlay(tree, sizes)).model.model_dump()
            shape = exact_shape(ModelSpec.of(model, meta, context.origin))
        except UsageError as error:
            return str(error)
        need, usable = estimate(shape, layout)["total"], plan.memory_bytes["usable"]
        if need <= usable:
            return ""
        return (
            f"{shape.parameters:,} parameters need {need / GIB:.2f} GiB of {usable / GIB:.2f} usable by a rank ({layout.kind})"
        )

    return why_not
