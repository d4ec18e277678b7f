"""Stage `plan`: the machine and the model's shape → plan.json and deepspeed.json, with reasons, or a refusal with the numbers."""

from __future__ import annotations

import json
from pathlib import Path

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.record import write_text
from autoglm_ops.contracts.training import HardwareSpec, ModelShape
from autoglm_ops.planning import FAMILIES, deepspeed_config, make_plan, refuse_unless_fits, shape_of_config
from autoglm_ops.stages.base import Context, Outcome
from autoglm_ops.training.models import ModelSpec, glm_config, shape_of


def run(context: Context) -> Outcome:
    """Writes plan.json (ParallelPlan) and deepspeed.json. Raises Refused when the plan does not fit."""
    settings = context.settings
    meta = TokenMeta.read(context.output("tokenize", "meta.json"))
    shape = exact_shape(ModelSpec.of(settings.model.model_dump(), meta, context.origin))
    shape = shape.model_copy(update={"mean_length": meta.mean_length})
    plan = make_plan(
        HardwareSpec.read(context.input("hardware")),
        shape,
        batch_size=settings.train.batch_size,
        precision=settings.train.precision,
        **settings.plan.model_dump(),
    )
    if not shape.family:
        guess = "parameters: an upper estimate, since the planner has no formula for this model's family"
        plan = plan.model_copy(update={"reasons": (*plan.reasons, guess)})
    config = deepspeed_config(
        plan,
        learning_rate=settings.train.learning_rate,
        weight_decay=settings.train.weight_decay,
        gradient_clip=settings.train.gradient_clip,
    )
    plan.write(context.out / "plan.json")
    write_text(context.out / "deepspeed.json", json.dumps(config, indent=2, sort_keys=True) + "\n")
    refuse_unless_fits(plan)
    facts = {"ranks": plan.ranks, "zero_stage": plan.zero_stage, "micro_batch": plan.micro_batch, "precision": plan.precision}
    return Outcome(reasons=plan.reasons, facts=facts)


def exact_shape(spec: ModelSpec) -> ModelShape:
    """Exact for a family the planner knows. `shape_of` comes first in any case: it refuses a folder nobody may train from."""
    rough = shape_of(spec)
    if spec.folder is None:
        config = {"model_type": "glm", **glm_config(spec)}
    else:
        config = json.loads((Path(spec.folder) / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") not in FAMILIES:
        return rough
    return shape_of_config(config, task="classification", max_length=spec.max_length, labels=len(spec.labels))
