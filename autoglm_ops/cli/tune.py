"""`autoglm tune`: what a study would search and cost, or the study itself."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from autoglm_ops.cli.shared import AsJson, Overrides, checkout, show_json
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.settings import load
from autoglm_ops.stages.runner import run_stage


def tune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the space and the estimate; train nothing.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the study of params.yaml on the present inputs, as the stage `tune` does, or say with --dry-run what it would take."""
    from autoglm_ops.stages import tune as stage

    root = checkout()
    if not dry_run:
        done = run_stage("tune", root, overrides=tuple(overrides or ()))
        show_json(done.facts) if as_json else print("\n".join(done.reasons))
        return
    patches, plan = root / "inputs" / "patches.json", root / "out" / "plan" / "plan.json"
    told = stage.dry_run(
        load(root / "params.yaml", overrides=overrides or ()),
        PatchSet.read(patches) if patches.exists() else PatchSet(),
        ParallelPlan.read(plan) if plan.exists() else None,
    )
    if as_json:
        show_json(told)
        return
    table = Table("key", "searched", title=f"space {told['version']}, strategy {told['strategy']}")
    for key, value in told["space"].items():
        table.add_row(key, str(value))
    console = Console(highlight=False)
    console.print(table)
    for line in (*told["changes"], *told["reasons"]):
        console.print(line)
    seconds = "unknown until the stage plan ran" if told["seconds"] is None else f"about {told['seconds']:g} s of training"
    console.print(f"at most {told['trials']} trials, {told['steps']} steps, scored at {told['rungs']}")
    console.print(f"{seconds}; the hard stop is {told['hard_stop_seconds']:g} s")


def add_to(app: typer.Typer) -> None:
    app.command()(tune)
