"""`autoglm serve`: answer requests with a registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autoglm_ops.cli.shared import Configs, Overrides, checkout, home
from autoglm_ops.settings import load
from autoglm_ops.stages import serving


def serve(
    model: Annotated[
        str | None,
        typer.Option(
            help="models:/NAME@ALIAS follows the alias; models:/NAME/VERSION stays; a folder serves that model. Default: the champion."
        ),
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on. Default: serving.host, this machine only.")] = None,
    port: Annotated[int | None, typer.Option(min=0, max=65535, help="Port; 0 picks a free one. Default: serving.port.")] = None,
    key_file: Annotated[
        Path | None,
        typer.Option(
            envvar="AUTOGLM_API_KEY_FILE",
            help="API keys, one a line. Default: $AUTOGLM_HOME/serving/api-key, made on first start.",
        ),
    ] = None,
    challenger: Annotated[
        str | None, typer.Option(help="A second model, named as --model is, that answers a share of the users.")
    ] = None,
    share: Annotated[float, typer.Option(min=0.0, max=1.0, help="The challenger's share of the users.")] = 0.1,
    overrides: Overrides = None,
    configs: Configs = None,
) -> None:
    """Serve a model over HTTP: /v1/classify, /v1/feedback, /v1/models, /metrics, /healthz.

    \b
    autoglm serve &
    KEY="Authorization: Bearer $(cat .autoglm/serving/api-key)"
    curl localhost:8000/v1/classify -H "$KEY" -d '{"input": "很干净"}'
    curl localhost:8000/v1/feedback -H "$KEY" \\
         -d '{"id": "clf-...", "label": "pos"}'

    Every answer is kept, under its id, before it is sent; the label that comes back for it trains the next model. When the alias
    moves, the new model takes over without a dropped request. Ctrl-C stops.
    """
    settings, place = load(checkout() / "params.yaml", overrides=overrides or (), configs=configs or ()), home()
    request = serving.Request(model or serving.champion_uri(settings), host, port, key_file, challenger, share)
    console = Console(highlight=False, soft_wrap=True)

    def ready(url: str) -> None:
        console.print(f"serving {request.model} on {url}; the API key is in {key_file or serving.key_path(place)}")

    serving.serve(request, settings, place, ready)


def add_to(app: typer.Typer) -> None:
    app.command()(serve)
