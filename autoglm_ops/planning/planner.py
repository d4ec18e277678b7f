"""Choose ranks, micro-batch, accumulation and ZeRO stage; each choice says why. What the user fixed is kept or refused, never bent."""

from __future__ import annotations

from typing import Literal, cast

from autoglm_ops.contracts.training import HardwareSpec, ModelShape, ParallelPlan
from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.planning.memory import GIB, estimate, usable_bytes

EASY = 0.5
"""Replicated states may take this share of a rank's memory before the planner shards them."""

Precision = Literal["fp32", "bf16", "fp16"]
Stage = Literal[0, 1, 2, 3]


def make_plan(
    hardware: HardwareSpec,
    shape: ModelShape,
    *,
    batch_size: int,
    precision: str = "auto",
    ranks: int | None = None,
    micro_batch: int | None = None,
    zero_stage: int | None = None,
) -> ParallelPlan:
    """The plan for one machine. `ranks`, `micro_batch` and `zero_stage` fix a choice; None leaves it to the planner.

    Raises UsageError when what is fixed contradicts the batch or the device. A plan that does not fit is returned with
    `fits=False` and the numbers, for `refuse_unless_fits` to refuse.
    """
    reasons: list[str] = []
    device: Literal["cpu", "cuda"] = "cuda" if hardware.gpus else "cpu"
    kind = _precision(precision, device, reasons)
    count = _ranks(hardware, batch_size, ranks, reasons)
    room = usable_bytes(hardware, count)

    def needs(micro: int, stage: int) -> dict[str, int]:
        return estimate(shape, micro_batch=micro, ranks=count, zero_stage=stage, precision=kind)

    smallest = micro_batch or 1
    stage = zero_stage if zero_stage is not None else _zero_stage([needs(smallest, s) for s in range(4)], room, count)
    sizes = _divisors(batch_size // count) if micro_batch is None else [_fixed_micro(batch_size, count, micro_batch)]
    micro = next((size for size in sizes if needs(size, stage)["total"] <= room), sizes[-1])
    memory = needs(micro, stage)
    reasons.append(_why_stage(stage, zero_stage, needs(smallest, 0), room, count))
    reasons.append(_why_micro(micro, batch_size, count, micro_batch))
    return ParallelPlan(
        ranks=count,
        micro_batch=micro,
        accumulation=batch_size // (count * micro),
        zero_stage=cast(Stage, stage),
        precision=kind,
        device=device,
        threads_per_rank=max(1, hardware.cpus // count),
        memory_bytes={**memory, "usable": room},
        fits=memory["total"] <= room,
        reasons=tuple(reasons),
    )


def refuse_unless_fits(plan: ParallelPlan) -> None:
    """Raise Refused with the numbers of a plan that does not fit."""
    if plan.fits:
        return
    parts = ", ".join(f"{name} {size / GIB:.2f}" for name, size in plan.memory_bytes.items() if name not in ("total", "usable"))
    total, usable = plan.memory_bytes["total"] / GIB, plan.memory_bytes["usable"] / GIB
    raise Refused(
        f"does-not-fit: a rank needs {total:.2f} GiB ({parts}) and may use {usable:.2f} GiB, at ZeRO stage {plan.zero_stage} with "
        f"micro-batch {plan.micro_batch} on {plan.ranks} {plan.device} ranks; take a smaller model or tokenize.max_length, or more memory"
    )


def _precision(wanted: str, device: str, reasons: list[str]) -> Precision:
    if wanted == "auto":
        chosen: Precision = "bf16" if device == "cuda" else "fp32"
        reasons.append(
            f"precision {chosen}: "
            + ("GPUs multiply it fastest" if device == "cuda" else "CPU kernels are fastest and exact in it")
        )
        return chosen
    if wanted == "fp16" and device == "cpu":
        raise UsageError(
            "train.precision = 'fp16' needs a GPU: its small range overflows on CPU kernels; use fp32, bf16 or auto"
        )
    reasons.append(f"precision {wanted}: fixed by train.precision")
    return cast(Precision, wanted)


def _ranks(hardware: HardwareSpec, batch_size: int, fixed: int | None, reasons: list[str]) -> int:
    if fixed is not None:
        if batch_size % fixed:
            raise UsageError(f"train.batch_size = {batch_size} is not divisible by plan.ranks = {fixed}; change one of them")
        if hardware.gpus and fixed > hardware.gpus:
            raise UsageError(f"plan.ranks = {fixed} but the machine has {hardware.gpus} GPUs; use at most one rank a GPU")
        reasons.append(f"ranks {fixed}: fixed by plan.ranks")
        return fixed
    have = hardware.gpus or min(2, hardware.cpus)
    count = next(size for size in range(have, 0, -1) if batch_size % size == 0)
    why = (
        f"one a GPU of {have}"
        if hardware.gpus
        else f"{hardware.cpus} CPU cores, and more than two processes gain nothing on gloo"
    )
    if count < have:
        why = f"train.batch_size = {batch_size} is not divisible by {have}, and the global batch is kept exactly"
    reasons.append(f"ranks {count}: {why}")
    return count


def _zero_stage(needs: list[dict[str, int]], room: int, ranks: int) -> int:
    """0 while replicated states are easy; else the first stage whose least layout fits; else 3, the smallest there is."""
    if _states(needs[0]) <= EASY * room or ranks == 1:
        return 0
    return next((stage for stage in (1, 2, 3) if needs[stage]["total"] <= room), 3)


def _states(memory: dict[str, int]) -> int:
    return memory["weights"] + memory["gradients"] + memory["optimizer"]


def _fixed_micro(batch_size: int, ranks: int, micro: int) -> int:
    if (batch_size // ranks) % micro:
        raise UsageError(
            f"plan.micro_batch = {micro} does not divide the {batch_size // ranks} rows a rank takes of train.batch_size = {batch_size}; "
            f"use one of {', '.join(map(str, _divisors(batch_size // ranks)))}"
        )
    return micro


def _divisors(number: int) -> list[int]:
    return [size for size in range(number, 0, -1) if number % size == 0]


def _why_stage(stage: int, fixed: int | None, replicated: dict[str, int], room: int, ranks: int) -> str:
    states = f"replicated states take {_states(replicated) / room:.2%} of the {room / GIB:.1f} GiB a rank may use"
    if fixed is not None:
        return f"ZeRO {stage}: fixed by plan.zero_stage; {states}"
    if stage == 0:
        return f"ZeRO 0: {states}" + (
            "; one rank has nobody to shard with" if ranks == 1 else "; sharding would only cost messages"
        )
    return f"ZeRO {stage}: {states}, over {EASY:.0%}; the first stage that fits on {ranks} ranks, or the smallest there is"


def _why_micro(micro: int, batch_size: int, ranks: int, fixed: int | None) -> str:
    steps = batch_size // (ranks * micro)
    what = f"micro-batch {micro} × accumulation {steps} × {ranks} ranks = {batch_size}"
    if fixed is not None:
        return f"{what}: fixed by plan.micro_batch"
    return f"{what}: " + (
        "the whole share of a rank fits at once" if steps == 1 else "the largest divisor whose activations fit"
    )
