"""Choose a layout; each choice says why. What the user fixed is kept or refused, never bent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from autoglm_ops.contracts.training import HardwareSpec, ModelShape, ParallelPlan
from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.planning import splits as cuts
from autoglm_ops.planning.candidates import Choice, divisors, enumerate_layouts, most_ranks
from autoglm_ops.planning.layout import Layout, Precision, buckets
from autoglm_ops.planning.memory import GIB, estimate, usable_bytes, usable_host
from autoglm_ops.planning.speed import step_seconds


@dataclass(frozen=True)
class Weighed:
    """A layout with what it needs and what it takes."""

    layout: Layout
    memory: dict[str, int]
    room: int
    host_room: int
    seconds: float

    @property
    def fits(self) -> bool:
        return self.memory["total"] <= self.room and self.memory["host"] <= self.host_room

    @property
    def rank(self) -> tuple[float, int, int, bool, bool, int]:
        """Order of what fits: the fastest, then the simplest."""
        layout = self.layout
        parts = layout.tensor * layout.pipeline
        return self.seconds, parts, layout.zero_stage, layout.checkpointing, layout.offload != "none", layout.accumulation


def weigh(layout: Layout, shape: ModelShape, hardware: HardwareSpec) -> Weighed:
    """Estimate one layout."""
    host = usable_host(hardware, layout.ranks) if layout.device == "cuda" else 0
    room = usable_bytes(hardware, layout.ranks)
    return Weighed(layout, estimate(shape, layout), room, host, step_seconds(shape, layout, hardware))


def make_plan(
    hardware: HardwareSpec,
    shape: ModelShape,
    *,
    batch_size: int,
    precision: str = "auto",
    splits: bool = False,
    **fixed: int | None,
) -> ParallelPlan:
    """The fastest plan that fits. `ranks`, `micro_batch`, `zero_stage`, `tensor` and `pipeline` fix a choice; None leaves it to the planner.

    splits: whether the trainer at hand may spread a copy of the model over several ranks.

    Raises UsageError when what is fixed contradicts the batch or the device. When nothing fits, the smallest plan is returned with
    `fits=False` and the numbers, for `refuse_unless_fits` to refuse.
    """
    choice = Choice(**fixed, checkpointing=True, offload=True, splits=splits)
    kind = settle_precision(precision, hardware)
    require_possible(hardware, shape, batch_size, kind, choice)
    weighed = [weigh(layout, shape, hardware) for layout in enumerate_layouts(hardware, shape, batch_size, kind, choice)]
    if not weighed:
        sizes = ", ".join(map(str, divisors(batch_size)))
        raise UsageError(
            f"plan.micro_batch = {choice.micro_batch} divides train.batch_size = {batch_size} on no number of ranks; use one of {sizes}"
        )
    fitting = [item for item in weighed if item.fits]
    best = min(fitting, key=lambda item: item.rank) if fitting else min(weighed, key=lambda item: item.memory["total"])
    return to_plan(best, shape, hardware, _reasons(best, shape, hardware, precision, choice))


def to_plan(weighed: Weighed, shape: ModelShape, hardware: HardwareSpec, reasons: tuple[str, ...] = ()) -> ParallelPlan:
    """The record of a layout. A CPU rank has no host beside itself, so its `host` bytes are left out."""
    layout = weighed.layout
    memory = {name: size for name, size in weighed.memory.items() if name != "host" or layout.device == "cuda"}
    return ParallelPlan(
        ranks=layout.ranks,
        micro_batch=layout.micro_batch,
        accumulation=layout.accumulation,
        zero_stage=layout.zero_stage,
        precision=layout.precision,
        device=layout.device,
        threads_per_rank=max(1, hardware.cpus // min(layout.ranks, hardware.gpus or layout.ranks)),
        memory_bytes={**memory, "usable": weighed.room},
        fits=weighed.fits,
        reasons=reasons,
        checkpointing=layout.checkpointing,
        offload=layout.offload,
        step_seconds=weighed.seconds,
        buckets=buckets(shape, layout.zero_stage),
        tensor=layout.tensor,
        pipeline=layout.pipeline,
    )


def refuse_unless_fits(plan: ParallelPlan) -> None:
    """Raise Refused with the numbers of a plan that does not fit."""
    if plan.fits:
        return
    left_out = ("total", "usable", "host")
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in plan.memory_bytes.items() if name not in left_out)
    total, usable = plan.memory_bytes["total"] / GIB, plan.memory_bytes["usable"] / GIB
    host = ""
    if "host" in plan.memory_bytes:
        host = f" and {plan.memory_bytes['host'] / GIB:.2f} GiB of the host's"
    raise Refused(
        f"does-not-fit: a rank needs {total:.2f} GiB ({parts}){host} and may use {usable:.2f} GiB, at {layout_of(plan).kind} with "
        f"micro-batch {plan.micro_batch} on {plan.ranks} {plan.device} rank{'s' * (plan.ranks != 1)}; take a smaller model or tokenize.max_length, or more memory"
    )


def layout_of(plan: ParallelPlan) -> Layout:
    """What `to_plan` made the record of."""
    return Layout(**plan.model_dump(include=set(Layout.__dataclass_fields__)))


def settle_precision(wanted: str, hardware: HardwareSpec) -> Precision:
    """`auto` made definite. Raises UsageError for fp16 on a CPU."""
    if wanted == "auto":
        return "bf16" if hardware.gpus else "fp32"
    if wanted == "fp16" and not hardware.gpus:
        raise UsageError(
            "train.precision = 'fp16' needs a GPU: its small range overflows on CPU kernels; use fp32, bf16 or auto"
        )
    return cast(Literal["fp32", "bf16", "fp16"], wanted)


def require_possible(hardware: HardwareSpec, shape: ModelShape, batch_size: int, precision: Precision, choice: Choice) -> None:
    """Raise UsageError when what is fixed contradicts the batch, the machine or the model."""
    ranks, micro = choice.ranks, choice.micro_batch
    if choice.parts > 1:
        _require_cut(hardware, shape, batch_size, precision, choice)
        return
    if ranks is not None and batch_size % ranks:
        raise UsageError(f"train.batch_size = {batch_size} is not divisible by plan.ranks = {ranks}; change one of them")
    if ranks is not None and hardware.gpus and ranks > most_ranks(hardware):
        raise UsageError(f"plan.ranks = {ranks} but the machine has {most_ranks(hardware)} GPUs; use at most one rank a GPU")
    rows = batch_size // (ranks or _count(hardware, batch_size))
    if micro is not None and rows % micro:
        raise UsageError(
            f"plan.micro_batch = {micro} does not divide the {rows} rows a rank takes of train.batch_size = {batch_size}; "
            f"use one of {', '.join(map(str, divisors(rows)))}"
        )


def _require_cut(hardware: HardwareSpec, shape: ModelShape, batch_size: int, precision: Precision, choice: Choice) -> None:
    tensor, pipeline, most = choice.tensor or 1, choice.pipeline or 1, choice.ranks or most_ranks(hardware)
    asked = f"plan.tensor = {tensor} x plan.pipeline = {pipeline}"
    why = cuts.refusal(hardware, shape, tensor, pipeline, most)
    if not choice.splits:
        why = "this training computes whole models; only a causal language model whose weights are all trained can be cut"
    elif choice.zero_stage:
        why = f"it goes with plan.zero_stage = 0 alone, and {choice.zero_stage} is asked for"
    elif precision == "fp16":
        why = "fp16 needs its loss scaled, which only the engine of whole models does; take bf16"
    if why:
        raise UsageError(f"{asked} cannot run: {why}; change one of them")
    if next(enumerate_layouts(hardware, shape, batch_size, precision, choice), None) is None:
        raise UsageError(
            f"train.batch_size = {batch_size} cannot be shared out with {asked}: ranks, copies and micro-batch must divide it, and each copy "
            f"needs {pipeline} micro-batches or more; change one of them"
        )


def _count(hardware: HardwareSpec, batch_size: int) -> int:
    return next(size for size in divisors(batch_size) if size <= most_ranks(hardware))


def _reasons(best: Weighed, shape: ModelShape, hardware: HardwareSpec, wanted: str, choice: Choice) -> tuple[str, ...]:
    layout = best.layout
    batch = layout.copies * layout.micro_batch * layout.accumulation
    return (
        _why_precision(layout, wanted),
        _why_ranks(layout.ranks, batch, hardware, choice.ranks),
        _why_stage(best, shape, choice.zero_stage),
        _why_micro(layout, batch, choice.micro_batch),
        *_why_more(layout),
    )


def _why_more(layout: Layout) -> list[str]:
    """Of what costs time and is taken only where less does not fit."""
    said = []
    if layout.checkpointing:
        said.append(
            "activation checkpointing: a third more arithmetic, since activations do not fit whole or leave too small a micro-batch"
        )
    if layout.offload != "none":
        said.append(f"offload {layout.offload}: kept in the host's memory, since the GPUs' does not take it")
    return said


def _why_precision(layout: Layout, wanted: str) -> str:
    if wanted != "auto":
        return f"precision {layout.precision}: fixed by train.precision"
    why = "GPUs multiply it fastest" if layout.device == "cuda" else "CPU kernels are fastest and exact in it"
    return f"precision {layout.precision}: {why}"


def _why_ranks(count: int, batch_size: int, hardware: HardwareSpec, fixed: int | None) -> str:
    have = most_ranks(hardware)
    if fixed is not None:
        return f"ranks {count}: fixed by plan.ranks"
    if count == have:
        cores = f"{hardware.cpus} CPU cores, and more than two processes gain nothing on gloo"
        return f"ranks {count}: " + (f"one a GPU of {have}" if hardware.gpus else cores)
    if batch_size % have:
        return (
            f"ranks {count}: train.batch_size = {batch_size} is not divisible by {have}, and the global batch is kept exactly"
        )
    return f"ranks {count} of {have}: more would spend longer on messages than they save, or do not fit"


def _why_stage(best: Weighed, shape: ModelShape, fixed: int | None) -> str:
    layout, room = best.layout, best.room
    if layout.split:
        return _why_cut(layout, shape)
    single = Layout(1, layout.micro_batch, precision=layout.precision, device=layout.device)
    whole = sum(estimate(shape, single)[name] for name in ("weights", "gradients", "optimizer"))
    states = f"replicated states take {whole / room:.2%} of the {room / GIB:.1f} GiB a rank may use"
    if fixed is not None:
        return f"ZeRO {layout.zero_stage}: fixed by plan.zero_stage; {states}"
    if layout.zero_stage == 0:
        alone = "one rank has nobody to shard with" if layout.ranks == 1 else "sharding would only cost messages"
        return f"ZeRO 0: {states}; {alone}"
    return f"ZeRO {layout.zero_stage}: {states}; of the stages that fit on {layout.ranks} rank{'s' * (layout.ranks != 1)} the fastest, or the smallest there is"


def _why_cut(layout: Layout, shape: ModelShape) -> str:
    said = [f"each layer over {layout.tensor} ranks of a node"] if layout.tensor > 1 else []
    said += [f"{shape.layers} layers in {layout.pipeline} stages"] if layout.pipeline > 1 else []
    copies = f"{layout.copies} {'copy' if layout.copies == 1 else 'copies'} of the model"
    unproven = "; run on CPU ranks so far, so on GPUs an estimate" if layout.device == "cuda" else ""
    return f"{layout.kind}: {' and '.join(said)}, {copies}{unproven}"


def _why_micro(layout: Layout, batch_size: int, fixed: int | None) -> str:
    by = f"{layout.copies} copies" if layout.split else f"{layout.ranks} rank{'s' * (layout.ranks != 1)}"
    what = f"micro-batch {layout.micro_batch} × accumulation {layout.accumulation} × {by} = {batch_size}"
    if fixed is not None:
        return f"{what}: fixed by plan.micro_batch"
    whole, largest = "the whole share of a rank fits at once", "the largest divisor whose activations fit"
    return f"{what}: {whole if layout.accumulation == 1 else largest}"
