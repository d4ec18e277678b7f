"""Stage `plan`: the machine and the model's shape → plan.json and deepspeed.json, with reasons, or a refusal with the numbers."""

from __future__ import annotations

import json

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.record import write_text
from autoglm_ops.contracts.training import HardwareSpec
from autoglm_ops.planning import deepspeed_config, make_plan, refuse_unless_fits
from autoglm_ops.stages.base import Context, Outcome
from autoglm_ops.training.models import ModelSpec, shape_of


def run(context: Context) -> Outcome:
    """Writes plan.json (ParallelPlan) and deepspeed.json. Raises Refused when the plan does not fit."""
    settings = context.settings
    plan = make_plan(
        HardwareSpec.read(context.input("hardware")),
        shape_of(
            ModelSpec.of(settings.model.model_dump(), TokenMeta.read(context.output("tokenize", "meta.json")), context.origin)
        ),
        batch_size=settings.train.batch_size,
        precision=settings.train.precision,
        **settings.plan.model_dump(),
    )
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
