"""All kinds of plans side by side: what fits, fastest first; one line for each kind that does not; and what changed since the last time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import groupby

from autoglm_ops.contracts.training import HardwareSpec, ModelShape, ParallelPlan, PlanSurvey
from autoglm_ops.planning import splits as cuts
from autoglm_ops.planning.candidates import Choice, enumerate_layouts, most_ranks
from autoglm_ops.planning.memory import GIB
from autoglm_ops.planning.planner import Weighed, layout_of, require_possible, settle_precision, to_plan, weigh

_PARTS = ("weights", "gradients", "optimizer", "activations", "temporary", "buffers")


def survey(
    model: str,
    task: str,
    shape: ModelShape,
    hardware: HardwareSpec,
    *,
    batch_size: int,
    precision: str = "auto",
    choice: Choice | None = None,
) -> PlanSurvey:
    """The best plan of every kind (ranks, ZeRO stage or cut, checkpointing, offload) that fits, and why the others do not.

    Raises UsageError when what is fixed contradicts the batch or the hardware.
    """
    choice = choice or Choice(checkpointing=True, offload=True, splits=task == "causal-lm")
    kind = settle_precision(precision, hardware)
    require_possible(hardware, shape, batch_size, kind, choice)
    weighed = [weigh(layout, shape, hardware) for layout in enumerate_layouts(hardware, shape, batch_size, kind, choice)]
    best = sorted(_best_of_each_kind(weighed), key=lambda item: item.rank)
    return PlanSurvey(
        model=model,
        task=task,
        batch_size=batch_size,
        shape=shape,
        hardware=hardware,
        plans=tuple(to_plan(item, shape, hardware) for item in best),
        why_not=(
            *_why_not(weighed),
            *_unused(best, hardware, batch_size),
            *cuts.why_not(hardware, shape, kind, most_ranks(hardware)),
        ),
    )


def changes(last: PlanSurvey | None, now: PlanSurvey) -> list[str]:
    """What differs in the chosen plan and in what it was chosen for, one line each; empty when nothing does or there is no last."""
    if last is None:
        return []
    before, after = _facts(last), _facts(now)
    return [f"{name}: {before[name]} -> {after[name]}" for name in after if before.get(name) != after[name]]


def _best_of_each_kind(weighed: Iterable[Weighed]) -> Iterator[Weighed]:
    def kind(item: Weighed) -> tuple[int, str]:
        return item.layout.ranks, item.layout.kind

    fitting = sorted((item for item in weighed if item.fits), key=kind)
    for _, group in groupby(fitting, key=kind):
        yield min(group, key=lambda item: item.rank)


def _why_not(weighed: list[Weighed]) -> Iterator[str]:
    """One line for each kind that fits on no number of ranks, at its smallest."""
    by_kind: dict[str, list[Weighed]] = {}
    for item in weighed:
        by_kind.setdefault(item.layout.kind, []).append(item)
    for kind, items in by_kind.items():
        if not any(item.fits for item in items):
            yield f"{kind}: {_shortfall(min(items, key=_over))}"


def _over(item: Weighed) -> tuple[bool, int]:
    return item.memory["host"] > item.host_room, item.memory["total"]


def _shortfall(item: Weighed) -> str:
    layout, memory = item.layout, item.memory
    where = f"on {layout.ranks} rank{'s' * (layout.ranks != 1)} at micro-batch {layout.micro_batch}"
    if memory["total"] > item.room:
        largest = max(_PARTS, key=lambda name: memory[name])
        needs = f"needs {memory['total'] / GIB:,.1f} GiB of {item.room / GIB:,.1f} {where}"
        return f"{needs}; {largest} alone {memory[largest] / GIB:,.1f}"
    needs = f"needs {memory['host'] / GIB:,.1f} GiB of the host's {item.host_room / GIB:,.1f} {where}"
    return f"{needs}; every rank builds the whole model there in fp32, and offloads to it"


def _unused(best: list[Weighed], hardware: HardwareSpec, batch_size: int) -> Iterator[str]:
    most = most_ranks(hardware)
    if best and all(item.layout.ranks < most for item in best) and batch_size % most:
        yield f"{most} ranks: the batch of {batch_size} is not divisible by them, and it is kept exactly"


def _facts(found: PlanSurvey) -> dict[str, str]:
    hardware = found.hardware
    where = (
        f"{hardware.nodes} x {hardware.gpus} {hardware.gpu_name or 'GPU'}" if hardware.gpus else f"{hardware.cpus} CPU cores"
    )
    facts = {
        "hardware": where,
        "task": found.task,
        "batch": str(found.batch_size),
        "length": str(found.shape.max_length),
        "parameters": f"{found.shape.parameters:,}",
        "verdict": "fits" if found.fits else "does not fit",
    }
    return facts | (_plan_facts(found.plans[0]) if found.plans else {})


def _plan_facts(plan: ParallelPlan) -> dict[str, str]:
    layout = f"{plan.ranks} rank{'s' * (plan.ranks != 1)} x {plan.micro_batch} x {plan.accumulation}"
    return {
        "layout": layout,
        "kind": kind_of(plan),
        "precision": plan.precision,
        "memory": f"{plan.memory_bytes['total'] / GIB:.2f} GiB a rank",
        "step": f"{plan.step_seconds:.3g} s",
    }


def kind_of(plan: ParallelPlan) -> str:
    """`ZeRO 3, checkpointing, offload optimizer`; `tensor 2, pipeline 4`."""
    return layout_of(plan).kind
