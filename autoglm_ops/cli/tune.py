"""`autoglm tune`: what a study would search and cost, or the study itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from autoglm_ops.cli.shared import AsJson, Overrides, checkout, home, show_json
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.settings import load
from autoglm_ops.stages.runner import run_stage


def tune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the space and the estimate; train nothing.")] = False,
    diff: Annotated[
        Path | None,
        typer.Option(
            "--diff", metavar="FILE", help="What FILE's search space (a params.yaml, a report.json) says differently."
        ),
    ] = None,
    storage: Annotated[bool, typer.Option("--storage", help="Where studies can be opened with optuna-dashboard.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run the study of params.yaml on the present inputs, as the stage `tune` does, or say with --dry-run what it would take."""
    from autoglm_ops.stages import studies
    from autoglm_ops.stages import tune as stage

    root = checkout()
    if storage or diff is not None:
        settings = load(root / "params.yaml", overrides=overrides or ())
        lines = studies.storages(settings, home()) if storage else stage.difference(settings, diff or root)
        show_json(lines) if as_json else print("\n".join(lines) or ("no study was kept yet" if storage else "the same space"))
        return
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
