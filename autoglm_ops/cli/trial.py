"""`autoglm trial`: the trials of a study one by one, for whoever trains several at once."""

from __future__ import annotations

from typing import Annotated

import typer
from pydantic import ValidationError

from autoglm_ops.cli.shared import checkout, home, show_json
from autoglm_ops.errors import UsageError
from autoglm_ops.stages import runs, trials
from autoglm_ops.tuning.rounds import Look

app = typer.Typer(
    help="Trials of a study that are trained at once: ask for a round, run each of its trials anywhere, ask again."
)

Json = Annotated[str, typer.Option("--look", metavar="JSON", help="One of what `ask` printed.")]
Run = Annotated[str | None, typer.Option("--in", metavar="RUN", help="A run's workspace; this checkout when left out.")]


def parsed(text: str) -> Look:
    """Raises UsageError when it is no look."""
    try:
        return Look.model_validate_json(text)
    except ValidationError as error:
        raise UsageError(
            f"--look is none that `autoglm trial ask` printed: {error.errors()[0]['msg']}: {text[:200]!r}"
        ) from error


@app.command()
def ask(
    run: Run = None,
    alone: Annotated[
        bool,
        typer.Option(
            "--alone", help="In a run: [] where the stage sends a round away as one, since who asks takes one at a time."
        ),
    ] = False,
) -> None:
    """Tell the study what came of the last round, and print the trials of the next one as JSON; [] when the study is over."""
    looks = trials.ask(checkout()) if run is None else runs.ask(run, home(), alone=alone)
    show_json([look.model_dump(mode="json") for look in looks])


@app.command("run")
def run_one(look: Json, run: Run = None) -> None:
    """Train one trial to its next step and keep its score; in a run, where `cluster` says. Prints what came of it as JSON."""
    asked = parsed(look)
    told = trials.train(checkout(), asked) if run is None else runs.take_look(run, asked, home())
    show_json(told.model_dump(mode="json"))


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="trial", no_args_is_help=True)
