"""`autoglm stage NAME`: one step of the pipeline, the same for a person, `dvc repro` and Airflow."""

from __future__ import annotations

from typing import Annotated

import typer

from autoglm_ops import logs
from autoglm_ops.cli.shared import AsJson, Overrides, checkout, show_json
from autoglm_ops.stages import graph, runner, workplace


def stage(
    name: Annotated[str, typer.Argument(help=f"One of: {', '.join(graph.SPECS)}.")],
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run one stage here, and write completed/NAME.json.

    It reads params.yaml, inputs/ (from `autoglm snapshot`) and earlier stages' outputs, whose digests are checked, and
    writes out/NAME whole or not at all. Only placement settings (store, tracking, cluster, serving, notify) can be
    overridden here: any other key must be in params.yaml, since DVC would cache one value under another's name.
    """
    root = checkout()
    logs.configure(run=workplace.run_key(root), stage=name)
    completion = runner.run_stage(name, root, overrides=tuple(overrides or ()))
    if as_json:
        show_json(completion.model_dump(mode="json"))
        return
    said = f" ({'; '.join(completion.reasons)})" if completion.reasons else ""
    print(f"{name}: done in {completion.seconds:.1f} s{said}")


def add_to(app: typer.Typer) -> None:
    app.command()(stage)
