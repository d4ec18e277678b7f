"""Hardware and a model's shape in, the layout of a training run out. Pure: no I/O, no torch.

plan = make_plan(hardware, shape, batch_size=64)
config = deepspeed_config(plan, learning_rate=1e-3, weight_decay=0.01, gradient_clip=1.0)
"""

from autoglm_ops.planning.deepspeed import deepspeed_config
from autoglm_ops.planning.memory import estimate, usable_bytes
from autoglm_ops.planning.planner import make_plan, refuse_unless_fits

__all__ = ["deepspeed_config", "estimate", "make_plan", "refuse_unless_fits", "usable_bytes"]
