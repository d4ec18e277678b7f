"""Seconds of one optimizer step, estimated: arithmetic by FLOPs, messages by bytes over the slowest link they cross.

For ranking plans, not for promising a date. Nothing is assumed to overlap, since the trainer's DeepSpeed does not overlap.
"""

from __future__ import annotations

import math

from autoglm_ops.contracts.training import HardwareSpec, ModelShape
from autoglm_ops.planning.layout import Layout
from autoglm_ops.planning.parts import FUSED_GATE
from autoglm_ops.planning.parts import parameters as part_of

GPU_SHARE = 0.45
"""Of a GPU's stated TFLOPs, what large transformers reach: 43 to 52 % on A100s (Korthikanti et al. 2022, table 5)."""
LINK_SHARE = 0.8
"""Of a link's stated rate, what a ring of large messages reaches."""
CORE_GFLOPS, THREADS_POWER = 27.0, 0.65
"""A CPU core in fp32, and what its rank's other threads add. With these, GLOO_GBS and CORE_MEMORY_GBS the plan is the faster one of one
and two ranks on two cores for each of five GLMs, batches of 32 short rows (ms a step, one rank and two): one layer read at its last
token, 128 wide 30 and 42, 256 wide 47 and 77, 512 wide 102 and 165; four layers, 128 wide 182 and 170, 384 wide 889 and 796. Some 20 ms
of each are the engine's own, whatever the plan, and not counted here."""
GLOO_GBS = 0.5
HOST_MEMORY_GBS, CORE_MEMORY_GBS = 100.0, 8.0
"""What Adam on the host reads and writes: over all ranks of a node, and of one CPU rank."""
ADAM_BYTES = 28
"""That it touches a parameter."""
_KERNELS = 60  # launches a layer and micro-batch, forward and backward, 10 microseconds each on a GPU or a core
_LAUNCH = 1e-5
_DISPATCH = 12
"""DTensor decides in Python what each operation of a cut layer means."""
_GLOO_WAIT, _NCCL_WAIT = 2e-4, 2e-5
_UNKNOWN_TFLOPS, _UNKNOWN_LINK = (
    100.0,
    16.0,
)  # a GPU nobody described: modest, so that no plan is picked for speed it may not have


def step_seconds(shape: ModelShape, layout: Layout, hardware: HardwareSpec) -> float:
    """Seconds of one step over the global batch."""
    if layout.split:
        return round(_split(shape, layout, hardware), 6)
    seconds = _compute(shape, layout, hardware) + _update(shape.parameters, layout)
    return round(seconds + _messages(shape, layout, hardware) + _host(shape, layout, hardware), 6)


def _split(shape: ModelShape, layout: Layout, hardware: HardwareSpec) -> float:
    """A copy's ranks share its arithmetic. Stages idle while the pipeline fills and drains: (stages - 1) micro-batches' time
    (Huang et al. 2019, GPipe, arXiv:1811.06965, section 2.3).
    """
    parts, count = layout.tensor * layout.pipeline, layout.accumulation
    layers = shape.layers / layout.pipeline
    launch = _LAUNCH * (_DISPATCH if layout.tensor > 1 else 1)
    each = step_flops(shape, layout) / count / parts / _rate(layout, hardware) + layers * _KERNELS * launch
    each += layers * _tensor_seconds(shape, layout, hardware) + _hand_over(shape, layout, hardware)
    own = part_of(shape, layout, first=True, last=layout.pipeline == 1)
    copies = 2 * own * 4 * (layout.copies - 1) / layout.copies
    return each * (count + layout.pipeline - 1) + copies / (_link(layout, hardware) * 1e9) + _update(own, layout)


def _tensor_seconds(shape: ModelShape, layout: Layout, hardware: HardwareSpec) -> float:
    """Of one layer and micro-batch: sums of the hidden states after attention and feed-forward, and back before each projection that reads
    them; a fused gate's outputs are gathered whole. A ring moves twice a sum's bytes and once a gathered one's.
    """
    if layout.tensor == 1:
        return 0.0
    fused = shape.family in FUSED_GATE
    sums = 2 + (4 if fused else 5)
    width = 2 * sums * shape.hidden_size + (3 * shape.intermediate_size if fused else 0)
    moved = layout.micro_batch * shape.max_length * width * layout.width * (layout.tensor - 1) / layout.tensor
    return moved / (_inside(layout, hardware) * 1e9) + sums * (_GLOO_WAIT if layout.device == "cpu" else _NCCL_WAIT)


def _hand_over(shape: ModelShape, layout: Layout, hardware: HardwareSpec) -> float:
    """Hidden states to the next stage and their gradients back, over the slowest link there is between stages."""
    if layout.pipeline == 1:
        return 0.0
    moved = 2 * layout.micro_batch * shape.max_length * shape.hidden_size * layout.width
    return moved / (_link(layout, hardware) * 1e9)


def row_flops(shape: ModelShape, *, whole: bool = False, length: int | None = None) -> float:
    """Floating-point operations of a forward pass over one row of `length` tokens, of the longest by default: 2 a weight and token,
    4 × layers × width × length for attention (Chowdhery et al. 2022, arXiv 2204.02311, appendix B).

    Of a model that reads its last token, 2 a weight of keys and values and token; the rest and attention for one token, unless `whole`.
    """
    length = length or shape.max_length
    looked_up = 0 if shape.tied else shape.vocabulary * shape.hidden_size
    weights = max(1, (shape.active_parameters or shape.parameters) - looked_up)
    attention = 4 * shape.layers * (shape.query_width or shape.hidden_size) * length
    if shape.reads_last and not whole:
        always = 2 * shape.hidden_size * shape.kv_width
        return float(2 * always * length + 2 * (weights - always) + attention)
    return float(length * (2 * weights + attention))


def step_flops(shape: ModelShape, layout: Layout) -> float:
    """Of a step on one rank, over rows of the usual length: three times a forward pass, and a fourth when activations are computed again."""
    rows, again = layout.micro_batch * layout.accumulation, layout.checkpointing
    return rows * row_flops(shape, whole=again, length=shape.mean_length or None) * (4 if again else 3)


def _compute(shape: ModelShape, layout: Layout, hardware: HardwareSpec) -> float:
    launches = shape.layers * _KERNELS * _LAUNCH * layout.accumulation
    return step_flops(shape, layout) / _rate(layout, hardware) + launches


def _update(parameters: int, layout: Layout) -> float:
    """The optimizer of a CPU rank; a GPU's memory is so fast that it is left out. Counted whole where it is sharded: whether sharding saves
    more of it than its own copies take was not measured.
    """
    return ADAM_BYTES * parameters / (CORE_MEMORY_GBS * 1e9) if layout.device == "cpu" else 0.0


def _rate(layout: Layout, hardware: HardwareSpec) -> float:
    if layout.device == "cpu":
        threads = max(1, hardware.cpus // layout.ranks)
        return CORE_GFLOPS * 1e9 * math.pow(threads, THREADS_POWER)
    stated = hardware.gpu_tflops_fp32 if layout.precision == "fp32" else hardware.gpu_tflops
    return (stated or _UNKNOWN_TFLOPS) * 1e12 * GPU_SHARE


def _messages(shape: ModelShape, layout: Layout, hardware: HardwareSpec) -> float:
    """ZeRO paper, section 7: two volumes of the weights a step, at stage 3 three a micro-batch; stage 2 reduces every micro-batch."""
    if layout.ranks == 1:
        return 0.0
    volumes = {0: 2, 1: 2, 2: 1 + layout.accumulation, 3: 3 * layout.accumulation}[layout.zero_stage]
    moved = volumes * shape.parameters * layout.width * (layout.ranks - 1) / layout.ranks
    return moved / (_link(layout, hardware) * 1e9)


def _link(layout: Layout, hardware: HardwareSpec) -> float:
    """GB/s of a ring through all ranks: its neighbours' link, and the node's network once it leaves the node."""
    inside = _inside(layout, hardware)
    if layout.device == "cpu" or layout.ranks <= hardware.gpus:
        return inside
    return min(inside, (hardware.network_gbs or 1.0) * LINK_SHARE)


def _inside(layout: Layout, hardware: HardwareSpec) -> float:
    """GB/s between the ranks of a node."""
    return GLOO_GBS if layout.device == "cpu" else (hardware.link_gbs or _UNKNOWN_LINK) * LINK_SHARE


def _host(shape: ModelShape, layout: Layout, hardware: HardwareSpec) -> float:
    """Offload: gradients down and weights up each step, weights twice a micro-batch if they live there; Adam at memory speed."""
    if layout.offload == "none":
        return 0.0
    ups = 1 if layout.offload == "optimizer" else 1 + 2 * layout.accumulation
    moved = (1 + ups) * shape.parameters * layout.width / layout.ranks
    local = min(layout.ranks, max(1, hardware.gpus))
    adam = ADAM_BYTES * shape.parameters / layout.ranks * local / (HOST_MEMORY_GBS * 1e9)
    return moved / ((hardware.host_gbs or _UNKNOWN_LINK) * LINK_SHARE * 1e9) + adam
