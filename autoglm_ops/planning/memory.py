"""What a rank needs in bytes, part by part and at its worst moment, and what it has.

Weights, gradients and optimizer follow the ZeRO paper (arXiv 1910.02054, section 3): 2 + 2 + 12 bytes a parameter in 16 bits.
Activations follow Korthikanti et al. 2022 (arXiv 2205.05198, section 4), which counts what each operation of a layer keeps for the
backward pass; here with today's layers: fused attention, gated feed-forward, RMSNorm. What DeepSpeed 0.19 adds in buffers and
temporary copies is measured in tests/benchmarks/bench_memory.py.
"""

from __future__ import annotations

from typing import NamedTuple

from autoglm_ops.contracts.training import HardwareSpec, ModelShape
from autoglm_ops.planning import parts as cut_parts
from autoglm_ops.planning.layout import Layout, buckets

GIB = 1 << 30
USABLE = 0.8
"""Share of memory a plan may count on: the rest is the allocator's slack, the data, the driver and the system."""

_ADAM_BYTES = 8  # two fp32 moments per parameter
_MASTER_BYTES = (
    4  # the fp32 copy that 16-bit runs keep, and sharded fp32 runs too (stage_1_and_2.py, single_partition_of_fp32_groups)
)
_ALL_REDUCE = 500_000_000  # elements the engine reduces at once at stage 0 (MEMORY_OPT_ALLREDUCE_SIZE)
_SUB_GROUP = 1_000_000_000  # elements stage 3 updates at once
_RANKS_BUILD_FP32 = 4  # bytes a parameter: every rank builds the whole model in the host's memory before it is sharded


def estimate(shape: ModelShape, layout: Layout) -> dict[str, int]:
    """Bytes per rank: each part at its largest; `total`, their largest sum at one moment of a step; `host`, a GPU rank's host bytes.

    Not all parts live at once (gradients grow while activations go), so `total` is at most the sum of the parts before it.
    """
    if layout.split:
        return {**cut_parts.estimate(shape, layout), "host": _host(shape, layout)}
    parts = _parts(shape, layout)
    moments = _moments(shape, layout, parts)
    buffers = max(moment.buffers for moment in moments)
    return {**parts, "buffers": buffers, "total": max(map(sum, moments)), "host": _host(shape, layout)}


def usable_bytes(hardware: HardwareSpec, ranks: int) -> int:
    """Bytes one rank may use: a GPU's own memory, or its share of the machine's."""
    if hardware.gpus:
        return int(hardware.gpu_memory_gib * GIB * USABLE)
    return int(hardware.memory_gib * GIB * USABLE) // ranks


def usable_host(hardware: HardwareSpec, ranks: int) -> int:
    """Bytes of host memory one rank of a GPU node may use."""
    return int(hardware.memory_gib * GIB * USABLE) // min(ranks, max(1, hardware.gpus))


def activation_bytes(shape: ModelShape, layout: Layout) -> int:
    """Bytes kept for the backward pass of one micro-batch; with checkpointing a layer's input each and one layer whole."""
    tokens = layout.micro_batch * shape.max_length
    if _short(shape, layout):
        return _read_out_bytes(shape, layout, tokens)
    dense, sparse = _layer_bytes(shape, layout, shape.intermediate_size), 0
    if shape.expert_layers:
        sparse = _layer_bytes(shape, layout, shape.expert_width)
    ends = shape.hidden_size * (8 + layout.width)  # the last norm, and what enters the first layer
    if layout.checkpointing:
        return tokens * (shape.layers * shape.hidden_size * layout.width + max(dense, sparse) + ends)
    return tokens * ((shape.layers - shape.expert_layers) * dense + shape.expert_layers * sparse + ends)


def _short(shape: ModelShape, layout: Layout) -> bool:
    return shape.reads_last and not layout.checkpointing


def _read_out_bytes(shape: ModelShape, layout: Layout, tokens: int) -> int:
    """A layer computed for the last token of each row: every token's value and turned key and a mask; of each distinct token, of which
    there are at most as many as the vocabulary has, the norm's input in fp32, the normalised and the scaled; a whole layer for each row.
    """
    distinct = min(tokens, shape.vocabulary)
    last = layout.micro_batch * _layer_bytes(shape, layout, shape.intermediate_size)
    return tokens * layout.width * (2 * shape.kv_width + 1) + distinct * shape.hidden_size * (4 + 2 * layout.width) + last


def _layer_bytes(shape: ModelShape, layout: Layout, inner: int) -> int:
    """Bytes per token of one layer.

    Gated: RMSNorm keeps its input in fp32, the normalised and the scaled; attention q, k, v (keys and values repeated for every head,
    since rows are padded), its output twice and a mask; the feed-forward gate, up, the gate's activation and the product.
    Plain (GPT, BERT): LayerNorm's input and output, the feed-forward before and after its activation, two dropout masks: 34 bytes ×
    hidden in 16 bits, the paper's sum. Scores: the paper's 5as, when dropout inside attention keeps torch's CPU from its fused kernel.
    """
    width, query = layout.width, shape.query_width or shape.hidden_size
    norms = (shape.norm_width or 2 * shape.hidden_size) * ((4 if shape.gated else 0) + 2 * width)
    scores = shape.heads * shape.max_length * (2 * width + 1) if shape.scores and layout.device == "cpu" else 0
    if not shape.gated:
        return norms + width * (4 * query + 2 * inner) + 2 * shape.hidden_size + scores
    return norms + width * (5 * query + 4 * inner + shape.max_length) + scores


def _parts(shape: ModelShape, layout: Layout) -> dict[str, int]:
    stage, ranks, size = layout.zero_stage, layout.ranks, shape.parameters
    share = [ranks if stage >= least else 1 for least in (3, 2, 1)]
    master = _MASTER_BYTES if layout.width == 2 or stage >= 1 else 0
    return {
        "weights": 0 if layout.offload == "parameters" else _ceil(size * layout.width, share[0]),
        "gradients": _ceil(size * layout.width, share[1]),
        "optimizer": 0 if layout.offload != "none" else _ceil(size * (_ADAM_BYTES + master), share[2]),
        "activations": activation_bytes(shape, layout),
        "temporary": _temporary(shape, layout),
    }


def _temporary(shape: ModelShape, layout: Layout) -> int:
    """What the first operations of the backward pass hold: a layer's first gradients, or the loss over the head's outputs.

    Cross-entropy holds the logits, their softmax and two gradients in fp32 at once, beside 16-bit logits.
    """
    if _short(shape, layout):  # the gradients of keys and values
        return layout.micro_batch * shape.max_length * 2 * shape.kv_width * layout.width
    inner = max(shape.intermediate_size, shape.expert_width)
    layer = layout.micro_batch * shape.max_length * (inner + shape.hidden_size) * layout.width
    values = 16 + (2 if layout.width == 2 else 0)
    return max(layer, layout.micro_batch * shape.scored * shape.outputs * values)


class _Moment(NamedTuple):
    """Bytes alive at once: of the named parts, and of DeepSpeed's buffers and temporary copies."""

    parts: int
    buffers: int


def _moments(shape: ModelShape, layout: Layout, parts: dict[str, int]) -> list[_Moment]:
    """The moments of a step that can be the worst: the backward pass begins, its gradients are reduced, the weights are updated."""
    width, stage, again = layout.width, layout.zero_stage, layout.accumulation > 1
    size = buckets(shape, stage).get("reduce_bucket_size", 0) * width
    always, grads = parts["weights"] + parts["optimizer"], parts["gradients"]
    forward = always + parts["activations"] + parts["temporary"]
    update, gathered = _update(shape, layout), _gathered(shape, layout)
    if stage == 0:
        flat = min(shape.parameters, _ALL_REDUCE) * width if layout.ranks > 1 else 0
        return [_Moment(forward + again * grads, 0), _Moment(always + grads, flat), _Moment(always + grads, update)]
    if stage == 3:
        held = always + grads
        return [
            _Moment(forward + grads, size + gathered),
            _Moment(held, 2 * size + gathered),
            _Moment(held, size + update),
        ]
    share = _ceil(shape.parameters * width, layout.ranks)
    left = max(0, grads - size) if stage == 1 and again else _ceil(shape.parameters * width - size, layout.ranks)
    return [
        _Moment(forward + again * grads, size),
        _Moment(always + left, 2 * size),
        _Moment(always + share, share + update),
    ]


def _gathered(shape: ModelShape, layout: Layout) -> int:
    """Whole weights alive beside the shards at stage 3, with the buffer they arrive in."""
    found = buckets(shape, layout.zero_stage)
    return (found.get("stage3_max_live_parameters", 0) + found.get("stage3_prefetch_bucket_size", 0)) * layout.width


def _update(shape: ModelShape, layout: Layout) -> int:
    """Temporary bytes of Adam's update: none in a fused kernel but the fp32 gradient; torch's other one holds two more copies."""
    if layout.offload != "none" or layout.zero_stage == 0:
        return 0
    share = _ceil(shape.parameters, layout.ranks)
    if layout.device == "cuda":
        return 4 * (min(share, _SUB_GROUP) if layout.zero_stage == 3 else share)
    return 4 * (3 if layout.zero_stage == 3 else 2) * min(share, _SUB_GROUP)


def _host(shape: ModelShape, layout: Layout) -> int:
    if layout.device == "cpu":
        return 0
    share = {"none": 0, "optimizer": 16, "parameters": 18}[layout.offload]  # fp32 master, gradient and moments; 16-bit weights
    return max(shape.parameters * _RANKS_BUILD_FP32, _ceil(shape.parameters * share, layout.ranks))


def _ceil(value: int, parts: int) -> int:
    return -(-value // parts)
