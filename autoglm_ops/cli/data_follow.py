"""`autoglm data follow`: an append-only log of events becomes documents, as it grows."""

from __future__ import annotations

import signal
from pathlib import Path
from threading import Event as Flag
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from autoglm_ops.cli.shared import AsJson, Configs, Overrides, checkout, home, show_json
from autoglm_ops.settings import load

if TYPE_CHECKING:
    from autoglm_ops.data.follow import LiveRoutes, Tally


def follow(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[SOURCE]", help="A folder, s3://bucket/prefix or redis://host:port/stream. Default: flow.log.source."
        ),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="End where the log ends now, rather than wait for more.")] = False,
    sets: Overrides = None,
    configs: Configs = None,
    as_json: AsJson = False,
) -> None:
    """Pull a log of events in order, and commit the documents its handlers make of them, with the offset, in batches.

    Killed anywhere and started again it goes on behind its last commit: nothing is lost, nothing doubled. The handlers' file
    (flow.log.handlers) may be changed while it runs; a wrong one is refused and the last good one stays. Name the output folder in
    flow.location, and each commit starts a build. Ctrl-C or SIGTERM commits what was taken, and ends.
    """
    from autoglm_ops.stages import dataset_log

    settings = load(checkout() / "params.yaml", overrides=sets or (), configs=configs or ())
    out = dataset_log.output(settings, home(), checkout())
    stop = Flag()
    _end_on_signals(stop)
    console = Console(stderr=True, highlight=False)
    where = dataset_log.source(settings, source, checkout())
    with console.status("waiting for events") as status:

        def watch(tally: Tally) -> None:
            status.update(_counts(tally))

        tally, routes = dataset_log.pull(settings, where, out, checkout(), once=once, stop=stop, watch=watch)
    if as_json:
        show_json(_summary(tally, routes, out))
    else:
        _say(tally, routes, out)


def _end_on_signals(stop: Flag) -> None:
    """The first one asks for an orderly end; the second ends it where it is, which costs nothing but the open batch."""

    def asked(number: int, _: object) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, asked)


def _summary(tally: Tally, routes: LiveRoutes, out: Path) -> dict[str, Any]:
    return {
        "seen": tally.seen,
        "kept": tally.kept,
        "documents": tally.documents,
        "quarantined": dict(tally.quarantined),
        "commits": tally.commits,
        "handlers": {"reloaded": routes.reloaded, "refused": routes.refused},
        "out": str(out),
    }


def _counts(tally: Tally) -> str:
    refused = sum(tally.quarantined.values())
    return f"{tally.seen:,} events, {tally.documents:,} documents, {refused:,} quarantined, {tally.commits:,} commits"


def _say(tally: Tally, routes: LiveRoutes, out: Path) -> None:
    console = Console(highlight=False, soft_wrap=True)
    reasons = ", ".join(f"{word} {count:,}" for word, count in sorted(tally.quarantined.items(), key=lambda item: -item[1]))
    console.print(f"events       {tally.seen:,} seen, {tally.kept:,} kept, in {tally.commits:,} commits", markup=False)
    console.print(f"documents    {tally.documents:,}", markup=False)
    console.print(f"quarantined  {reasons or 'none'}", markup=False)
    if routes.reloaded or routes.refused:
        console.print(f"handlers     reloaded {routes.reloaded}, refused {routes.refused}", markup=False)
    console.print(f"in           {out}", markup=False)


def add_to(data: typer.Typer) -> None:
    data.command()(follow)
