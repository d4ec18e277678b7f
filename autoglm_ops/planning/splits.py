"""Over how many ranks one copy of the model may be spread: its layers cut (tensor), or one after the other (pipeline).

Only what `training.mesh` runs: causal language models of the families below, all weights trained, in fp32 or bf16, the optimizer's state
beside the weights it is of (no ZeRO, no offload). On GPUs the estimate is all there is: these plans were run on CPU ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

from autoglm_ops.contracts.training import HardwareSpec, ModelShape
from autoglm_ops.planning.layout import Precision

FAMILIES = ("glm", "glm4", "llama", "mistral", "qwen2", "qwen3")
"""Dense, with a `tp_plan` and a `pp_plan` in transformers, and packed rows kept apart."""
Degrees = tuple[int, int]
"""(tensor, pipeline)."""


def degrees(hardware: HardwareSpec, shape: ModelShape, most: int) -> list[Degrees]:
    """Every pair beside (1, 1) that `shape` can be cut by, of at most `most` ranks together."""
    found = []
    for tensor in range(1, min(most, per_node(hardware, most)) + 1):
        for pipeline in range(1, min(shape.layers, most // tensor) + 1):
            if tensor * pipeline > 1 and not refusal(hardware, shape, tensor, pipeline, most):
                found.append((tensor, pipeline))
    return found


def per_node(hardware: HardwareSpec, most: int) -> int:
    """Ranks of one node."""
    return hardware.gpus or most


def refusal(hardware: HardwareSpec, shape: ModelShape, tensor: int, pipeline: int, most: int) -> str:
    """Why `shape` cannot be cut so on `hardware`, empty when it can."""
    if shape.family not in FAMILIES:
        return f"the trainer cuts {', '.join(FAMILIES)}, and not {shape.family or 'a family without a formula'}"
    if shape.outputs != shape.vocabulary:
        return "the trainer cuts causal language models alone"
    if tensor * pipeline > most:
        return f"{tensor} x {pipeline} ranks are more than the {most} there are"
    if per_node(hardware, most) % tensor:
        return f"{tensor} does not divide the {per_node(hardware, most)} ranks of a node, whose links alone are fast enough"
    for what, size in _cut_by_tensor(shape):
        if size % tensor:
            return f"{tensor} does not divide the {size} {what}"
    if shape.layers % pipeline:
        return f"{pipeline} does not divide the {shape.layers} layers, and all stages wait for the longest"
    return ""


def why_not(hardware: HardwareSpec, shape: ModelShape, precision: Precision, most: int) -> Iterator[str]:
    """A line for each degree that divides a node or the ranks, and what is never one."""
    if not possible(shape, precision):
        yield f"tensor and pipeline parallel: {_never(shape, precision)}"
        return
    for tensor in _powers(per_node(hardware, most)):
        if why := refusal(hardware, shape, tensor, 1, most):
            yield f"tensor {tensor}: {why}"
    for pipeline in _powers(most):
        if why := refusal(hardware, shape, 1, pipeline, most):
            yield f"pipeline {pipeline}: {why}"
    yield "tensor or pipeline with ZeRO 1 to 3 or offload: the trainer keeps a copy's whole optimizer state beside its weights"


def possible(shape: ModelShape, precision: Precision) -> bool:
    """Whether any cut of `shape` runs at all."""
    return shape.family in FAMILIES and shape.outputs == shape.vocabulary and precision != "fp16"


def _never(shape: ModelShape, precision: Precision) -> str:
    if precision == "fp16" and shape.family in FAMILIES:
        return "fp16 needs its loss scaled, which only the engine of whole models does; take bf16"
    return (
        f"the trainer cuts causal language models of {', '.join(FAMILIES)}, and this is {shape.family or 'none it knows'}"
        + (" with another head" if shape.family in FAMILIES else "")
    )


def _cut_by_tensor(shape: ModelShape) -> list[tuple[str, int]]:
    head = max(1, (shape.query_width or shape.hidden_size) // shape.heads)
    return [
        ("attention heads", shape.heads),
        ("key-value heads", max(1, shape.kv_width // head)),
        ("inner width", shape.intermediate_size),
    ]


def _powers(most: int) -> list[int]:
    return [1 << power for power in range(1, most.bit_length()) if 1 << power <= most]
