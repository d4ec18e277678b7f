"""`autoglm launch`: a language model trained from one train-config, everything left open filled in with its reason (spec P5, P6)."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from autoglm_ops.cli.shared import AsJson, checkout, home, show_json
from autoglm_ops.settings import Settings, load
from autoglm_ops.settings.launch import LaunchConfig, load_launch
from autoglm_ops.stages import snapshot

if TYPE_CHECKING:
    from autoglm_ops.stages.launch import Done
    from autoglm_ops.stages.launch_plan import Place, Ready


def launch(
    config: Annotated[Path, typer.Option("--config", metavar="FILE", help="The train-config: model, dataset, training.")],
    auto_pipeline: Annotated[
        bool,
        typer.Option(
            "--auto-pipeline/--no-auto-pipeline", help="Data flow engine, planner and tuner; each has a switch of its own."
        ),
    ] = True,
    data_flow: Annotated[
        bool | None, typer.Option("--data-flow/--no-data-flow", help="Clean and deduplicate the data.")
    ] = None,
    auto_parallel: Annotated[
        bool | None, typer.Option("--auto-parallel/--no-auto-parallel", help="Let the planner lay it out.")
    ] = None,
    tuner: Annotated[bool | None, typer.Option("--tuner/--no-tuner", help="Search the learning rate.")] = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="Print every setting as the run takes it, with its reason.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Prepare the data and decide all, and train nothing.")] = False,
    gpus: Annotated[
        int | None, typer.Option("--gpus", min=1, max=1024, help="With --dry-run: GPUs of each described node.")
    ] = None,
    nodes: Annotated[int, typer.Option("--nodes", min=1, max=4096, help="With --dry-run: nodes with that many GPUs.")] = 1,
    gpu: Annotated[str | None, typer.Option("--gpu", help="With --dry-run: their kind; see `autoglm plan --help`.")] = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the config, e.g. --set training.epochs=2."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Load, initialise, train on DeepSpeed ranks with checkpoints, publish the model. Killed and started again it goes on where it was.

    The data engine, the store and MLflow are as params.yaml says. Exit 3 when it does not fit or the budget does not allow it.
    """
    from autoglm_ops.stages import launch as runs
    from autoglm_ops.stages import launch_plan, planning

    if (gpus or gpu or nodes > 1) and not dry_run:
        raise typer.BadParameter("--gpu, --gpus and --nodes describe hardware that is not here: they go with --dry-run")
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    given = _switched(load_launch(config, tuple(sets or ())), auto_pipeline, data_flow, auto_parallel, tuner)
    place = launch_plan.Place(home(), checkout(), _settings())

    def watch(what: str) -> None:
        if not as_json:
            console.print(f"{time.monotonic() - started:6.1f} s  {what}")

    ready = launch_plan.prepare(given, planning.machine(gpu, gpus, nodes, snapshot.hardware()), place, watch)
    if explain and not as_json:
        _explain(ready)
    if dry_run:
        _dry(ready, as_json, said=explain)
        return
    done = runs.start(ready, place, watch)
    if as_json:
        show_json(_summary(done, ready))
    else:
        _show(done, ready, place, time.monotonic() - started)


def _settings() -> Settings:
    path = checkout() / "params.yaml"
    return load(path) if path.exists() else Settings.model_validate({"flow": {"suite": None}})


def _switched(
    given: LaunchConfig, whole: bool, data_flow: bool | None, auto_parallel: bool | None, tuner: bool | None
) -> LaunchConfig:
    """A switch on the command line is stronger than the config's, and than --no-auto-pipeline."""
    named = {"data_flow": data_flow, "auto_parallel": auto_parallel, "tuner": tuner}
    off = {} if whole else dict.fromkeys(named, False)
    update = {**off, **{name: value for name, value in named.items() if value is not None}}
    return given.model_copy(update={"pipeline": given.pipeline.model_copy(update=update)})


def _explain(ready: Ready) -> None:
    console = _wide()
    table = Table("setting", "value", "from", "why", box=None, title="settings")
    for item in ready.plan.settings:
        table.add_row(item.key, str(item.value), "config" if item.given else "filled in", item.reason)
    console.print(table)
    _cost(console, ready)


def _cost(console: Console, ready: Ready) -> None:
    plan, estimate = ready.plan.plan, ready.plan.estimate
    used, room = plan.memory_bytes["total"] / 2**30, plan.memory_bytes["usable"] / 2**30
    verdict = "fits" if plan.fits else "does not fit"
    money = (
        f", {estimate.money:g} at {ready.config.budget.price_per_hour:g} an hour" if ready.config.budget.price_per_hour else ""
    )
    console.print(f"memory: {used:.2f} of {room:.2f} GiB a rank: {verdict}", soft_wrap=True)
    console.print(f"estimate: {estimate.seconds:,.0f} s{money}: {estimate.basis}", soft_wrap=True)


def _dry(ready: Ready, as_json: bool, said: bool) -> None:
    from autoglm_ops.planning import refuse_unless_fits
    from autoglm_ops.stages.launch_plan import refuse_over_budget

    if as_json:
        show_json({**ready.plan.model_dump(mode="json"), "fits": ready.plan.plan.fits})
    else:
        if not said:
            _cost(_wide(), ready)
        print(f"launch {ready.plan.key}: {ready.plan.estimate.steps} steps; nothing was trained")
    refuse_unless_fits(ready.plan.plan)
    refuse_over_budget(ready)


def _summary(done: Done, ready: Ready) -> dict[str, Any]:
    record = done.record.model_dump(mode="json")
    return {**record, "folder": str(done.folder), "again": done.again, "measured": done.measured, "untracked": done.away}


def _show(done: Done, ready: Ready, place: Place, seconds: float) -> None:
    from autoglm_ops.planning import kind_of

    trained, measured = done.record.trained, done.measured
    console = _wide()
    if done.again:
        console.print(f"launch {done.record.key} was done before; remove {done.folder} to do it again", soft_wrap=True)
    what = "adapters" if "adapter" in done.record.outputs else "weights"
    table = Table(box=None, show_header=False)
    table.add_row(
        "model",
        f"{trained['architecture']}, {trained['trained']:,} of {trained['parameters']:,} {what} trained in {trained['dtype']}",
    )
    table.add_row(
        "data", f"{trained['samples']:,} rows, {trained['tokens']:,} tokens, packed {'yes' if trained['packed'] else 'no'}"
    )
    plan = done.record.plan
    table.add_row(
        "layout",
        f"{plan.copies} x {plan.micro_batch} x {plan.accumulation} = {plan.global_batch} rows a step, {kind_of(plan)} on {plan.ranks} rank{'s' * (plan.ranks != 1)}",
    )
    table.add_row(
        "loss",
        f"{trained['first_value']:.4f} before, {trained['best_value']:.4f} at step {trained['best_step']} of {trained['steps']} (validation)",
    )
    if trained["stopped"]:
        table.add_row("stopped", trained["stopped"])
    table.add_row(
        "speed",
        f"{measured['tokens_per_second']:,.0f} tokens/s; {measured['step_seconds']:.1f} s of steps, {seconds:.0f} s in all",
    )
    cost = ready.config.budget.price_per_hour * seconds / 3600
    if cost:
        table.add_row("cost", f"{cost:.4f}, estimated {ready.plan.estimate.money:g}")
    for name, digest in done.record.outputs.items():
        table.add_row(name, f"{done.folder / name} {digest[:16]}")
    console.print(table)
    if done.away:
        console.print(
            f"not tracked: {done.away}; the metrics are kept in {done.folder / 'metrics.spool'}, and the next launch sends them",
            soft_wrap=True,
        )


def _wide() -> Console:
    return Console(width=None if sys.stdout.isatty() else 160, highlight=False)


def add_to(app: typer.Typer) -> None:
    app.command()(launch)
