"""What every command needs: where it works, and how it answers a machine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated

import typer

from autoglm_ops.stages import workplace

AsJson = Annotated[bool, typer.Option("--json", help="Answer with JSON for machines.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override a setting, e.g. --set train.epochs=1 (repeatable)."),
]
Configs = Annotated[
    list[Path] | None, typer.Option("--config", metavar="FILE", help="Lay a YAML file over params.yaml (repeatable).")
]
AsOfDay = Annotated[
    str | None,
    typer.Option("--as-of", metavar="YYYY-MM-DD", help="Last day of data to see; clipped to what exists. Default: today."),
]


def home() -> Path:
    """$AUTOGLM_HOME, or .autoglm in the checkout."""

    return workplace.home(checkout())


def checkout() -> Path:
    """The checkout a command works on: $AUTOGLM_CHECKOUT or the working directory."""
    return Path(os.environ.get("AUTOGLM_CHECKOUT") or Path.cwd()).resolve()


def show_json(value: object) -> None:
    """One line of JSON on stdout, for machines."""
    print(json.dumps(value, ensure_ascii=False, sort_keys=True, default=str), flush=True)
