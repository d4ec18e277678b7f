"""`autoglm submit -- COMMAND`: run a command of your own on this machine, Slurm or Kubernetes, detached."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from typer.core import TyperGroup

from autoglm_ops.cli.shared import AsJson, Overrides, checkout, home, show_json
from autoglm_ops.settings import load


class _JobByDefault(TyperGroup):
    """What begins with an option, or with `--`, is a job: `autoglm submit --gpus 1 -- python train.py`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in self.commands and args[0] not in ctx.help_option_names:
            args = ["job", *args]
        return super().parse_args(ctx, args)


app = typer.Typer(
    cls=_JobByDefault, help="Run a command of your own where `cluster` says, detached: submit, status, logs, cancel."
)
Ident = Annotated[str, typer.Argument(metavar="ID", help="The job's id, as `autoglm submit` printed it.")]
_POLL_SECONDS = 0.3


@app.command()
def job(
    command: Annotated[list[str], typer.Argument(metavar="-- COMMAND…", help="What to run, in the folder of the code.")],
    code: Annotated[str | None, typer.Option(metavar="LOCATION", help="A folder, a .zip, .tar or .tar.gz, or s3://bucket/job.zip.")] = None,
    output: Annotated[list[str] | None, typer.Option(metavar="PATH", help="Folder to bring back (repeatable). Default: out.")] = None,
    logs: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the log. Default: the job's own, under $AUTOGLM_HOME.")] = None,
    name: Annotated[str, typer.Option(help="The beginning of its id.")] = "job",
    image: Annotated[str | None, typer.Option(help="Sets cluster.image.")] = None,
    nodes: Annotated[int | None, typer.Option(help="Sets cluster.resources.nodes.")] = None,
    gpus: Annotated[int | None, typer.Option(help="Sets cluster.resources.gpus, for each node.")] = None,
    backend: Annotated[str | None, typer.Option(help="Sets cluster.backend: local, kubernetes or slurm.")] = None,
    env: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="A variable for the job (repeatable).")] = None,
    secret: Annotated[list[str] | None, typer.Option(metavar="NAME", help="A variable of yours whose value no record may hold (repeatable).")] = None,
    after: Annotated[list[str] | None, typer.Option(metavar="ID", help="Start only when this job has succeeded (repeatable; on Slurm).")] = None,
    wait: Annotated[bool, typer.Option("--wait", help="Follow the log and end with the job's exit code.")] = False,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Run COMMAND detached, and print the job's id. Everything else about it is in the section `cluster` of params.yaml."""
    from autoglm_ops.stages import submitting

    asked = {"image": image, "resources.nodes": nodes, "resources.gpus": gpus, "backend": backend}
    given = [f"cluster.{key}={json.dumps(value)}" for key, value in asked.items() if value is not None]
    settings = load(checkout() / "params.yaml", overrides=(*(overrides or ()), *given))
    request = submitting.Request(
        command=tuple(command), name=name, code=code, outputs=tuple(output or ("out",)), environment=tuple(env or ()),
        secrets=tuple(secret or ()), logs=logs, after=tuple(after or ()),
    )  # fmt: skip
    record = submitting.submit(request, settings, home())
    if wait:
        raise typer.Exit(_follow(record.id))
    if as_json:
        _tell(record.id, as_json=True)
    else:
        print(record.id)


@app.command()
def status(ident: Ident, as_json: AsJson = False) -> None:
    """How a job is doing, or how it ended."""
    _tell(ident, as_json)


@app.command()
def logs(
    ident: Ident,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Until the job ends, and end with its exit code.")] = False,
) -> None:
    """Print a job's log."""
    if follow:
        raise typer.Exit(_follow(ident))
    _printer(ident)()


@app.command()
def cancel(ident: Ident, as_json: AsJson = False) -> None:
    """End a job and all it started."""
    from autoglm_ops.stages import submitting

    submitting.cancel(ident, home())
    _tell(ident, as_json)


@app.command("list")
def list_jobs(as_json: AsJson = False) -> None:
    """Every job, latest first."""
    from autoglm_ops.stages import submitting

    records = list(submitting.listed(home()))
    rows = [(record, submitting.glance(record, home())) for record in records]
    if as_json:
        show_json([now.model_dump(mode="json") for _, now in rows])
        return
    table = Table("id", "submitted", "backend", "state", "exit", "command", box=None)
    for record, now in rows:
        moment = datetime.fromtimestamp(record.created).strftime("%Y-%m-%d %H:%M")
        table.add_row(
            now.id, moment, now.backend, now.state, "" if now.exit is None else str(now.exit), " ".join(record.command)[:60]
        )
    Console().print(table if rows else "no jobs yet; `autoglm submit -- COMMAND` makes one")


@app.command(hidden=True)
def keep(ident: Ident) -> None:
    """What the detached process of a job runs."""
    from autoglm_ops.stages import submitting

    raise typer.Exit(submitting.keep(ident, home()).exit)


def _tell(ident: str, as_json: bool) -> None:
    from autoglm_ops.stages import submitting

    now = submitting.standing(ident, home())
    if as_json:
        show_json(now.model_dump(mode="json"))
        return
    said = f" (exit {now.exit}, {now.seconds:.1f} s)" if now.seconds is not None else ""
    print(f"{now.id}: {now.state}{said} on {now.backend}")
    for label, value in (("reason", now.reason), ("log", now.log), ("output", now.output)):
        if value:
            print(f"{label:8}{value}")


def _follow(ident: str) -> int:
    """Print the log until the job is over; its exit code. An interrupt ends the following, not the job."""
    from autoglm_ops.stages import submitting

    forward = _printer(ident)
    while not (now := submitting.standing(ident, home())).over:
        forward()
        time.sleep(_POLL_SECONDS)
    forward()
    print(f"{now.id}: {now.state}{f': {now.reason}' if now.reason else ''}", file=sys.stderr)
    return now.exit if now.exit is not None else 1


def _printer(ident: str) -> Callable[[], None]:
    from autoglm_ops.cluster.tail import Tail
    from autoglm_ops.stages import submitting

    record = submitting.find(ident, home())
    tail = Tail(Path(record.log))

    def line(stream: str, content: bytes) -> None:
        sys.stdout.write(content.decode("utf-8", errors="replace"))
        sys.stdout.flush()

    return lambda: tail.finish(line)


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="submit", no_args_is_help=True)
