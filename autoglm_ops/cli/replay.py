"""`autoglm replay RUN`: is what a run made what its commit makes?"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from autoglm_ops.cli.shared import AsJson, checkout, home, show_json


def replay(
    run: Annotated[str, typer.Argument(help="The run's key, as `autoglm runs list` shows it.")],
    stages: Annotated[list[str] | None, typer.Option("--to", metavar="STAGE", help="Stop after this stage.")] = None,
    as_json: AsJson = False,
) -> None:
    """Build a run again from its commit, and say digest by digest whether it is the same.

    The stages run with the code, settings and inputs of the run's commit; nothing of the run's own work is used, and nothing is
    registered or promoted. It takes as long as the run did. Exit 3 when an output differs.
    """
    from autoglm_ops.stages.rebuild import ReplayedStage, rebuild

    console = Console(stderr=as_json, highlight=False)

    def said(stage: ReplayedStage) -> None:
        files = f"{stage.same} file{'s' * (stage.same != 1)} the same"
        wrong = f"; different: {', '.join(stage.different)}" if stage.different else ""
        console.print(f"{stage.stage:10} {stage.seconds:7.1f} s  {files}{wrong}", soft_wrap=True, markup=False)

    found = rebuild(run, checkout(), home(), said, stages or ())
    if as_json:
        show_json(found.model_dump(mode="json"))
    else:
        verdict = "identical" if found.identical else "not identical"
        console.print(f"{verdict}: run {run}, commit {found.commit[:12]}, {len(found.stages)} stages")
    if not found.identical:
        raise typer.Exit(3)


def add_to(app: typer.Typer) -> None:
    app.command()(replay)
