"""Hardware and a model's shape in, the layout of a training run out. Pure: no I/O, no torch.

shape = shape_of_config(json.loads(text), task="causal-lm", max_length=2048)
found = survey("glm-4-9b", "causal-lm", shape, described("h100-80g", gpus=8), batch_size=64)   # everything that fits, and why not
plan = make_plan(hardware, shape, batch_size=64)                                               # the one a run takes
config = deepspeed_config(plan, learning_rate=1e-3, weight_decay=0.01, gradient_clip=1.0)
"""

from autoglm_ops.planning.candidates import Choice
from autoglm_ops.planning.deepspeed import deepspeed_config
from autoglm_ops.planning.layout import Layout
from autoglm_ops.planning.memory import estimate, usable_bytes
from autoglm_ops.planning.planner import make_plan, refuse_unless_fits, settle_precision
from autoglm_ops.planning.presets import GPUS, MODELS, described
from autoglm_ops.planning.shapes import FAMILIES, shape_of_config
from autoglm_ops.planning.speed import row_flops
from autoglm_ops.planning.survey import changes, kind_of, survey

__all__ = [
    "FAMILIES",
    "GPUS",
    "MODELS",
    "Choice",
    "Layout",
    "changes",
    "deepspeed_config",
    "described",
    "estimate",
    "kind_of",
    "make_plan",
    "refuse_unless_fits",
    "row_flops",
    "settle_precision",
    "shape_of_config",
    "survey",
    "usable_bytes",
]
