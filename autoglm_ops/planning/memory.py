"""What a rank needs in bytes, part by part, and what it has."""

from __future__ import annotations

from autoglm_ops.contracts.training import HardwareSpec, ModelShape

GIB = 1 << 30
USABLE = 0.8
"""Share of memory a plan may count on: the rest is the allocator's slack, the data and the system."""

_ADAM_BYTES = 8  # two fp32 moments per parameter
_MASTER_BYTES = 4  # the fp32 copy a 16-bit run keeps


def estimate(shape: ModelShape, *, micro_batch: int, ranks: int, zero_stage: int, precision: str) -> dict[str, int]:
    """Bytes per rank: weights, gradients, optimizer states, activations, and their sum as `total`.

    States follow the ZeRO paper's table (arXiv 1910.02054, section 3): stage 1 shards the optimizer, 2 the gradients too, 3 the
    weights too. Activations are counted without recomputation, per token and layer (see `_activation_values`).
    """
    width = 4 if precision == "fp32" else 2
    master = 0 if precision == "fp32" else _MASTER_BYTES
    share = [ranks if zero_stage >= stage else 1 for stage in (3, 2, 1)]
    parts = {
        "weights": _ceil(shape.parameters * width, share[0]),
        "gradients": _ceil(shape.parameters * width, share[1]),
        "optimizer": _ceil(shape.parameters * (_ADAM_BYTES + master), share[2]),
        "activations": micro_batch * shape.max_length * _activation_values(shape) * width,
    }
    return {**parts, "total": sum(parts.values())}


def usable_bytes(hardware: HardwareSpec, ranks: int) -> int:
    """Bytes one rank may use: a GPU's own memory, or its share of the machine's."""
    if hardware.gpus:
        return int(hardware.gpu_memory_gib * GIB * USABLE)
    return int(hardware.memory_gib * GIB * USABLE) // ranks


def _activation_values(shape: ModelShape) -> int:
    """Values kept for the backward pass per token: ten hidden-sized and three feed-forward-sized ones a layer, attention scores, the embedding."""
    per_layer = 10 * shape.hidden_size + 3 * shape.intermediate_size + 2 * shape.heads * shape.max_length
    return shape.layers * per_layer + 2 * shape.hidden_size


def _ceil(value: int, parts: int) -> int:
    return -(-value // parts)
