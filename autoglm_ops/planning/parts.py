"""Bytes a rank needs for its part of a model that is cut: the same parts as `memory` has, at the worse of a pipeline's two ends.

Weights are fp32, also in bf16 runs (autocast keeps a 16-bit copy of each beside it while a pass runs); a copy's gradients and moments lie
beside its weights. 1F1B holds the activations of as many micro-batches as there are stages from here to the end (Narayanan et al. 2021,
arXiv:2104.04473, section 2.2). Within a tensor group attention is divided; norms, and a fused gate's outputs, are whole on every rank.
"""

from __future__ import annotations

from autoglm_ops.contracts.training import ModelShape
from autoglm_ops.planning.layout import Layout

_FP32, _ADAM = 4, 8
FUSED_GATE = ("glm", "glm4")
"""Families whose gate and up projections are one: their `tp_plan` gathers its outputs on every rank."""


def estimate(shape: ModelShape, layout: Layout) -> dict[str, int]:
    """Bytes per rank: each part at its largest, and `total`, their largest sum on one stage."""
    stages = [_stage(shape, layout, first=True, last=layout.pipeline == 1)]
    if layout.pipeline > 1:
        stages.append(_stage(shape, layout, first=False, last=True))
    return {part: max(stage[part] for stage in stages) for part in stages[0]}


def parameters(shape: ModelShape, layout: Layout, *, first: bool, last: bool) -> int:
    """Weights on a rank of the first, the last or a middle stage."""
    table, head = _ends(shape)
    body = shape.parameters - table - (0 if shape.tied else head)
    matrices = (body - shape.vectors) // (layout.tensor * layout.pipeline)
    own = matrices + shape.vectors // layout.pipeline
    if shape.tied:  # the output layer's cut is the table's
        return own + (table // layout.tensor if first or last else 0)
    return own + (table if first else 0) + (head // layout.tensor if last else 0)


def activation_bytes(shape: ModelShape, layout: Layout) -> int:
    """Of one micro-batch through one stage's layers."""
    tokens, layers = layout.micro_batch * shape.max_length, -(-shape.layers // layout.pipeline)
    layer = _layer(shape, layout)
    if layout.checkpointing:
        return tokens * (layers * shape.hidden_size * layout.width + layer)
    return tokens * layers * layer


def _layer(shape: ModelShape, layout: Layout) -> int:
    """Bytes per token: as `memory` counts them, attention divided and the feed-forward too unless its gate is fused."""
    width, query = layout.width, shape.query_width or shape.hidden_size
    norms = (shape.norm_width or 2 * shape.hidden_size) * (4 + 2 * width)
    attention = (5 * query + shape.max_length) * width // layout.tensor
    attention += (
        shape.heads // layout.tensor * shape.max_length * (2 * width + 1) if shape.scores and layout.device == "cpu" else 0
    )
    inner = 4 * shape.intermediate_size * width
    return norms + attention + (inner if shape.family in FUSED_GATE else inner // layout.tensor)


def _stage(shape: ModelShape, layout: Layout, *, first: bool, last: bool) -> dict[str, int]:
    held = parameters(shape, layout, first=first, last=last)
    tokens, alive = layout.micro_batch * shape.max_length, min(layout.pipeline, layout.accumulation) if not last else 1
    edge = tokens * shape.hidden_size * layout.width
    logits = layout.micro_batch * shape.scored * shape.outputs * (16 + (2 if layout.width == 2 else 0))
    found = {
        "weights": held * (_FP32 + (2 if layout.width == 2 else 0)),
        "gradients": held * _FP32,
        "optimizer": held * _ADAM,
        "activations": alive * activation_bytes(shape, layout) + tokens * shape.hidden_size * (8 + layout.width),
        "temporary": logits if last else tokens * (shape.intermediate_size + shape.hidden_size) * layout.width,
        "buffers": 2 * edge * (layout.pipeline > 1) * (alive + 1) + 2 * edge * (layout.tensor > 1),
    }
    return {**found, "total": sum(found.values())}


def _ends(shape: ModelShape) -> tuple[int, int]:
    """Weights of the embedding table and of the output layer."""
    return shape.vocabulary * shape.hidden_size, shape.outputs * shape.hidden_size
