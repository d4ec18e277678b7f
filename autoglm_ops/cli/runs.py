"""`autoglm runs`: the workspaces of DAG runs."""

from __future__ import annotations

import shutil
from dataclasses import asdict
from datetime import date, datetime
from functools import partial
from pathlib import Path
from typing import Annotated

import typer
import yaml
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from autoglm_ops.cli.shared import AsJson, AsOfDay, Configs, Overrides, checkout, home, show_json
from autoglm_ops.contracts.cluster import JobStatus
from autoglm_ops.contracts.record import Completion
from autoglm_ops.errors import TryAgain, UsageError
from autoglm_ops.settings import load
from autoglm_ops.stages import away, graph, runner, runs

app = typer.Typer(help="The workspaces of DAG runs: list, show and prune them; open, exec and close are what Airflow calls.")

UNSEEN = JobStatus(state="lost", exit=TryAgain.exit_code, seconds=0, reason="lost: the pod left no result; its log says more")
Run = Annotated[str, typer.Argument(help="The run key, as `autoglm runs list` shows it.")]


def day(text: str | None) -> date | None:
    """An ISO day, or None. Raises UsageError."""
    try:
        return date.fromisoformat(text) if text else None
    except ValueError as error:
        raise UsageError(f"--as-of {text!r} is not a day; write it as YYYY-MM-DD") from error


@app.command("list")
def list_runs(as_json: AsJson = False) -> None:
    """Every run, latest first."""
    rows = [(info, runs.closed(Path(info.workspace))) for info in runs.listed(home())]
    if as_json:
        show_json([{**info.model_dump(), "closed": closed is not None} for info, closed in rows])
        return
    table = Table("run", "dag", "as of", "opened", "state", "model tag", box=None)
    for info, closed in rows:
        opened = datetime.fromtimestamp(info.opened).strftime("%Y-%m-%d %H:%M")
        table.add_row(
            info.run, info.dag, info.as_of, opened, "closed" if closed else "unfinished", (closed and closed.tag) or ""
        )
    Console().print(table if rows else "no runs yet; `make run` or `autoglm run` makes one")


@app.command()
def show(run: Run, as_json: AsJson = False) -> None:
    """What each stage of a run did."""
    root = runs.workspace(run, home())
    paths = {name: runner.completion_path(root, name) for name in graph.SPECS}
    done = [Completion.read(path) for path in paths.values() if path.exists()]
    if as_json:
        show_json([completion.model_dump(mode="json") for completion in done])
        return
    table = Table("stage", "exit", "seconds", "how", "reasons", box=None)
    for item in done:
        how = "cached" if item.cached else f"attempt {item.attempt}"
        table.add_row(item.stage, str(item.exit), f"{item.seconds:.1f}", how, escape("; ".join(item.reasons)))
    Console().print(table)
    Console().print(f"workspace: {root}", soft_wrap=True)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=0, help="How many closed workspaces to keep.")] = 10,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
) -> None:
    """Remove old closed workspaces, and jobs on the cluster that nobody waits for. Commits (branches runs/KEY) and data in DVC's cache and remote stay."""
    before = shutil.disk_usage(home()).free
    gone = runs.prune(home(), keep, dry=dry_run)
    freed = (shutil.disk_usage(home()).free - before) / 2**20
    print(
        f"{'would remove' if dry_run else 'removed'} {len(gone)} workspaces"
        + ("" if dry_run else f", {max(freed, 0):.0f} MiB freed")
    )
    for name in away.sweep(checkout(), load(checkout() / "params.yaml"), dry=dry_run):
        print(f"{'would remove' if dry_run else 'removed'} job {name}: nobody waits for it")


@app.command()
def gc(
    days: Annotated[int, typer.Option(min=1, help="Keep what a job of the last DAYS days left, or a newer one reads.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what old jobs left in the artefact store: inputs, outputs, checkpoints, results. Models that are registered and datasets stay."""
    from autoglm_ops.stages import collecting

    found = collecting.run(load(checkout() / "params.yaml"), home(), days, dry=dry_run)
    if as_json:
        show_json(asdict(found))
        return
    freed = "" if dry_run else f", {found.freed / 2**20:.0f} MiB freed"
    print(f"{'would remove' if dry_run else 'removed'} {found.artefacts} artefacts of {found.jobs} jobs{freed}")


@app.command("open")
def open_run(
    dag: Annotated[str, typer.Option(help="The DAG that asks.")],
    dag_run_id: Annotated[str, typer.Option(help="Its run id: the same id always finds the same workspace.")],
    as_of: AsOfDay = None,
    overrides: Overrides = None,
    configs: Configs = None,
    promote: Annotated[bool | None, typer.Option("--promote/--no-promote", help="Sets release.promote.")] = None,
    as_json: AsJson = False,
) -> None:
    """Open (or find) the workspace of a DAG run: clone, snapshot, resolve the settings."""
    extra = [] if promote is None else [f"release.promote={str(promote).lower()}"]
    request = runs.Request(dag, dag_run_id, day(as_of), (*(overrides or ()), *extra), tuple(configs or ()))
    info = runs.open_run(request, checkout(), home())
    if as_json:
        show_json(info.model_dump(mode="json"))
    else:
        print(f"{info.run}: {info.decision}: {info.reason}\n{info.workspace}")


@app.command("exec")
def execute(run: Run, stage: Annotated[str, typer.Argument(help="The stage to run in that workspace.")]) -> None:
    """Run one stage in a workspace, from DVC's cache when it can be. Prints its completion record as JSON."""
    show_json(runs.execute(run, stage, home()).model_dump(mode="json"))


@app.command()
def send(
    run: Run,
    stage: Annotated[str, typer.Argument(help="The stage to make ready for a pod.")],
    form: Annotated[
        str | None,
        typer.Option("--as", metavar="FORM", help="Manifests for `kubectl apply -f -` instead: pods, job or jobset."),
    ] = None,
) -> None:
    """Put what a stage reads into the store, and print the pod that runs it; none when it needs no pod. `take` comes after.

    With `--as job` it is an Indexed Job and its headless Service, with `--as jobset` a JobSet, for clusters whose controllers start and
    place all nodes of a job as one.
    """
    if form is None:
        print(runs.send(run, stage, home()).model_dump_json())
    else:
        print(yaml.safe_dump_all(runs.render(run, stage, home(), form), sort_keys=False), end="")


@app.command()
def take(
    run: Run,
    stage: Annotated[str, typer.Argument(help="The stage whose pod has ended.")],
    said: Annotated[
        str | None, typer.Option(help="How the pod ended, as JSON (contracts.cluster.JobStatus), where it left no word itself.")
    ] = None,
) -> None:
    """Take over what the pod of `send` left, as `exec` does. Prints its completion record as JSON."""
    done = runs.execute(run, stage, home(), by=partial(runs.take, said=UNSEEN if said is None else _status(said)))
    show_json(done.model_dump(mode="json"))


def _status(text: str) -> JobStatus:
    try:
        return JobStatus.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(f"--said is no JobStatus: {error.errors()[0]['msg']}: {text[:200]!r}") from error


@app.command()
def close(run: Run) -> None:
    """Commit a finished run, push its branch and its data, tag its model. Prints JSON."""
    show_json(runs.close_run(run, home()).model_dump(mode="json"))


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="runs", no_args_is_help=True)
