"""`autoglm cluster`: what a cluster's administrator needs of params.yaml."""

from __future__ import annotations

from typing import Annotated

import typer
import yaml

from autoglm_ops.cli.shared import Configs, Overrides, checkout
from autoglm_ops.settings import load

app = typer.Typer(help="What a cluster needs before jobs run on it.")


@app.callback()
def group() -> None:
    """A group, even of one command."""


@app.command()
def manifests(
    team: Annotated[str | None, typer.Option(metavar="NAME", help="Only this team. Default: all of params.yaml.")] = None,
    overrides: Overrides = None,
    configs: Configs = None,
) -> None:
    """Print what teams need on Kubernetes, for `kubectl apply -f -`: namespace, ResourceQuota, LimitRange, NetworkPolicies, accounts."""
    from autoglm_ops.stages import teams

    settings = load(checkout() / "params.yaml", overrides=tuple(overrides or ()), configs=tuple(configs or ()))
    print(yaml.safe_dump_all(teams.manifests(settings, team), sort_keys=False), end="")


def add_to(parent: typer.Typer) -> None:
    parent.add_typer(app, name="cluster", no_args_is_help=True)
