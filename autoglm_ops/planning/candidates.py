"""Every layout the trainer can run on the hardware, for one global batch: a plan that cannot run is not a plan."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from autoglm_ops.contracts.training import HardwareSpec, ModelShape
from autoglm_ops.planning import splits
from autoglm_ops.planning.layout import Layout, Offload, Precision, Stage

CPU_RANKS = 2
"""More processes than this gain nothing on gloo."""


@dataclass(frozen=True)
class Choice:
    """What the user fixed (None is free), and what the trainer at hand can do beside ZeRO."""

    ranks: int | None = None
    micro_batch: int | None = None
    zero_stage: int | None = None
    checkpointing: bool = False
    offload: bool = False
    tensor: int | None = None
    pipeline: int | None = None
    splits: bool = False
    """Whether the trainer at hand may spread one copy of the model over several ranks."""

    @property
    def parts(self) -> int:
        """Ranks of one copy, as far as it is fixed."""
        return (self.tensor or 1) * (self.pipeline or 1)


def enumerate_layouts(
    hardware: HardwareSpec, shape: ModelShape, batch_size: int, precision: Precision, choice: Choice
) -> Iterator[Layout]:
    """Every layout whose copies × micro-batch × accumulation is `batch_size` exactly and that keeps to `choice`."""
    if choice.parts == 1:
        yield from _whole(hardware, batch_size, precision, choice)
    if choice.splits and not choice.zero_stage and splits.possible(shape, precision):
        yield from _split(hardware, shape, batch_size, precision, choice)


def _whole(hardware: HardwareSpec, batch_size: int, precision: Precision, choice: Choice) -> Iterator[Layout]:
    for ranks in _ranks(hardware, batch_size, choice):
        for micro in _micro_batches(batch_size // ranks, choice):
            for stage, again, offload in _kinds(hardware, ranks, choice):
                yield Layout(
                    ranks=ranks,
                    micro_batch=micro,
                    accumulation=batch_size // (ranks * micro),
                    zero_stage=stage,
                    precision=precision,
                    device="cuda" if hardware.gpus else "cpu",
                    checkpointing=again,
                    offload=offload,
                )


def _split(
    hardware: HardwareSpec, shape: ModelShape, batch_size: int, precision: Precision, choice: Choice
) -> Iterator[Layout]:
    """A pipeline needs as many micro-batches as stages."""
    most = choice.ranks or most_ranks(hardware)
    for tensor, pipeline in splits.degrees(hardware, shape, most):
        if choice.tensor not in (None, tensor) or choice.pipeline not in (None, pipeline):
            continue
        for copies in _copies(hardware, batch_size, tensor * pipeline, most, choice):
            for micro in _micro_batches(batch_size // copies, choice):
                accumulation = batch_size // (copies * micro)
                for again in (False, True) if choice.checkpointing else (False,):
                    if accumulation >= pipeline:
                        yield Layout(
                            ranks=copies * tensor * pipeline,
                            micro_batch=micro,
                            accumulation=accumulation,
                            precision=precision,
                            device="cuda" if hardware.gpus else "cpu",
                            checkpointing=again,
                            tensor=tensor,
                            pipeline=pipeline,
                        )


def _copies(hardware: HardwareSpec, batch_size: int, parts: int, most: int, choice: Choice) -> list[int]:
    """How many copies of `parts` ranks each: whole nodes, or a part of one, as for whole models."""
    if choice.ranks is not None:
        return [choice.ranks // parts] if choice.ranks % parts == 0 and batch_size % (choice.ranks // parts) == 0 else []
    node = splits.per_node(hardware, most)
    fitting = [size for size in divisors(batch_size) if size * parts <= most]
    return [size for size in fitting if size * parts <= node or size * parts % node == 0]


def most_ranks(hardware: HardwareSpec) -> int:
    """One a GPU over all nodes; on CPUs at most CPU_RANKS."""
    return hardware.gpus * hardware.nodes or min(CPU_RANKS, hardware.cpus)


def divisors(number: int) -> list[int]:
    """Of `number`, the largest first."""
    return [size for size in range(number, 0, -1) if number % size == 0]


def _ranks(hardware: HardwareSpec, batch_size: int, choice: Choice) -> list[int]:
    """Whole nodes, or a part of one: ranks spread unevenly over nodes wait for each other."""
    if choice.ranks is not None:
        return [choice.ranks]
    most, per_node = most_ranks(hardware), hardware.gpus or most_ranks(hardware)
    return [size for size in divisors(batch_size) if size <= most and (size <= per_node or size % per_node == 0)]


def _micro_batches(rows: int, choice: Choice) -> list[int]:
    if choice.micro_batch is None:
        return divisors(rows)
    return [choice.micro_batch] if rows % choice.micro_batch == 0 else []


def _kinds(hardware: HardwareSpec, ranks: int, choice: Choice) -> Iterator[tuple[Stage, bool, Offload]]:
    """One rank has nobody to shard with, so stages 1 to 3 serve it only to offload."""
    stages = range(4) if choice.zero_stage is None else [choice.zero_stage]
    for stage in stages:
        for again in (False, True) if choice.checkpointing else (False,):
            if stage == 0 or ranks > 1 or choice.zero_stage is not None:
                yield cast(Stage, stage), again, "none"
            if choice.offload and hardware.gpus and stage >= 1:
                yield cast(Stage, stage), again, "optimizer"
            if choice.offload and hardware.gpus and stage == 3:
                yield cast(Stage, stage), again, "parameters"
