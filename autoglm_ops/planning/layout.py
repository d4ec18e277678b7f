"""One way to lay a run out, as a value; and the buffers DeepSpeed is told to use with it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from autoglm_ops.contracts.training import Cut, ModelShape

Precision = Literal["fp32", "bf16", "fp16"]
Stage = Literal[0, 1, 2, 3]
Offload = Literal["none", "optimizer", "parameters"]
Device = Literal["cpu", "cuda"]

BUCKET = 50_000_000
"""Elements of a communication buffer: 100 MB in 16 bits, where links already run at full speed. DeepSpeed's own is ten times that."""


@dataclass(frozen=True)
class Layout(Cut):
    """`ranks` over all nodes. Global batch = copies × micro_batch × accumulation."""

    ranks: int
    micro_batch: int
    accumulation: int = 1
    zero_stage: Stage = 0
    precision: Precision = "bf16"
    device: Device = "cuda"
    checkpointing: bool = False
    offload: Offload = "none"
    tensor: int = 1
    pipeline: int = 1

    @property
    def width(self) -> int:
        """Bytes of a weight."""
        return 4 if self.precision == "fp32" else 2

    @property
    def kind(self) -> str:
        """What the layout is, apart from its batch: `ZeRO 3, checkpointing, offload optimizer`, `tensor 2, pipeline 4`."""
        cuts = [f"{name} {size}" for name, size in (("tensor", self.tensor), ("pipeline", self.pipeline)) if size > 1]
        named = cuts or [f"ZeRO {self.zero_stage}"]
        if self.checkpointing:
            named.append("checkpointing")
        if self.offload != "none":
            named.append(f"offload {self.offload}")
        return ", ".join(named)


def buckets(shape: ModelShape, stage: int) -> dict[str, int]:
    """DeepSpeed's buffer sizes in elements (https://www.deepspeed.ai/docs/config-json/), fit to the model; none at stage 0.

    Its defaults reserve a buffer of 5e8 elements, 2 GB, whatever the model's size.
    """
    if stage == 0:
        return {}
    size = min(BUCKET, shape.parameters)
    found = {"reduce_bucket_size": size, "allgather_bucket_size": size}
    if stage == 3:
        live = min(shape.parameters, shape.largest_module + 2 * size)
        found |= {
            "stage3_prefetch_bucket_size": size,
            "stage3_max_live_parameters": live,
            "stage3_max_reuse_distance": live,
            "stage3_param_persistence_threshold": 10 * shape.hidden_size,
        }
    return found
