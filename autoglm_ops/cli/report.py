"""`autoglm report`: the last run's page and numbers."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console

from autoglm_ops.cli.run import show_summary
from autoglm_ops.cli.shared import AsJson, home
from autoglm_ops.errors import UsageError


def report(
    as_json: AsJson = False,
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Show the last run's summary and where its self-contained HTML report is."""
    page = home() / "latest" / "report.html"
    if not page.exists():
        raise UsageError("there is no report yet: no run has finished here; `make run` makes one")
    show_summary(Console(highlight=False), as_json=as_json)
    if show:
        typer.launch(page.as_uri())


def add_to(app: typer.Typer) -> None:
    app.command()(report)
