"""`autoglm plan`: how a model would be trained on some hardware, and whether it fits, before anything is spent."""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from autoglm_ops.cli.shared import AsJson, Overrides, checkout, home, show_json
from autoglm_ops.contracts.training import ParallelPlan, PlanSurvey
from autoglm_ops.errors import Refused
from autoglm_ops.settings import load
from autoglm_ops.stages import snapshot

_PARTS = ("weights", "gradients", "optimizer", "activations", "temporary", "buffers", "total")


class Task(StrEnum):
    """What the model's head is for."""

    CLASSIFICATION = "classification"
    CAUSAL_LM = "causal-lm"


class Precision(StrEnum):
    """`train.precision`."""

    AUTO = "auto"
    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"


def plan(
    model: Annotated[
        str | None, typer.Option("--model", metavar="NAME_OR_PATH", help="A known name, a model's folder or its config.json.")
    ] = None,
    gpus: Annotated[int | None, typer.Option("--gpus", min=1, max=1024, help="GPUs of each node.")] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=4096, help="Nodes with that many GPUs.")] = 1,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="a100-40g, a100-80g, h100-80g, h200-141g, l40s, 4090 or cpu. Default: h100-80g.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, max=1 << 20, help="Rows of a global batch.")] = None,
    seq_length: Annotated[int | None, typer.Option("--seq-length", min=1, max=1 << 20, help="Tokens of a row.")] = None,
    task: Annotated[Task, typer.Option("--task", help="What the head is for.")] = Task.CLASSIFICATION,
    precision: Annotated[Precision | None, typer.Option("--precision", help="Default: train.precision.")] = None,
    top: Annotated[int, typer.Option("--top", min=1, help="Plans to print.")] = 6,
    diff: Annotated[bool, typer.Option("--diff", help="Only what changed since the last plan for this model.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Print the plans that fit, fastest first, with bytes by part; why others do not; what changed. Exit 3 when none fits.

    Without --gpus it plans for this machine.
    """
    from autoglm_ops.stages import planning

    settings = load(checkout() / "params.yaml", overrides=overrides or ())
    hardware = planning.machine(gpu, gpus, nodes, snapshot.hardware())
    asked = planning.Asked(model, task.value, batch_size, seq_length, precision.value if precision else None)
    found = planning.look(asked, settings, hardware, checkout())
    first = not planning.kept(found.model, home()).exists()
    changed = planning.keep(found, home())
    if as_json:
        show_json({**found.model_dump(mode="json"), "fits": found.fits, "changes": changed})
    elif diff:
        print("\n".join(changed) or f"{found.model}: {'no earlier plan' if first else 'nothing changed'}")
    else:
        _print(found, changed, top)
    if not found.fits:
        raise Refused(
            f"does-not-fit: no plan for {found.model} fits {_where(found)}; take more or larger GPUs, or a smaller model"
        )


def _print(found: PlanSurvey, changed: list[str], top: int) -> None:
    from autoglm_ops.planning import kind_of

    console = Console(width=None if sys.stdout.isatty() else 150, highlight=False)
    shape = found.shape
    active = f" ({shape.active_parameters:,} a token)" if shape.experts else ""
    console.print(
        f"{found.model}, {found.task}: {shape.parameters:,} parameters{active}, {shape.layers} layers", soft_wrap=True
    )
    console.print(f"on {_where(found)}; {found.batch_size} rows of {shape.max_length} tokens a step", soft_wrap=True)
    if found.plans:
        unit, name = _unit(found.plans)
        table = Table(
            "plan", "ranks", "batch", *_PARTS, "usable", "step s", title=f"{name} a rank, each part at its largest", box=None
        )
        for item in found.plans[:top]:
            batch = f"{item.micro_batch} x {item.accumulation}"
            sizes = [f"{item.memory_bytes[part] / unit:,.2f}" for part in (*_PARTS, "usable")]
            table.add_row(kind_of(item), str(item.ranks), batch, *sizes, f"{item.step_seconds:.3g}")
        console.print(table)
        console.print(f"fits: {len(found.plans)} kinds of plans; the first is the estimate's fastest", soft_wrap=True)
    for line in found.why_not:
        console.print(f"why not {line}", soft_wrap=True)
    for line in changed:
        console.print(f"changed {line}", soft_wrap=True)


def _unit(plans: tuple[ParallelPlan, ...]) -> tuple[int, str]:
    return (1 << 30, "GiB") if plans[0].memory_bytes["total"] >= 1 << 30 else (1 << 20, "MiB")


def _where(found: PlanSurvey) -> str:
    hardware = found.hardware
    if not hardware.gpus:
        return f"{hardware.cpus} CPU cores with {hardware.memory_gib} GiB"
    nodes = f"{hardware.nodes} nodes of " if hardware.nodes > 1 else ""
    return f"{nodes}{hardware.gpus} x {hardware.gpu_name or 'GPU'} with {hardware.gpu_memory_gib} GiB"


def add_to(app: typer.Typer) -> None:
    app.command()(plan)
