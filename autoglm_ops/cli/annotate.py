"""`autoglm annotate`: a person's labels, where they are worth most."""

from __future__ import annotations

import getpass
import re
import sys
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from autoglm_ops.cli.feedback import Format, Since, Until, day
from autoglm_ops.cli.shared import AsJson, checkout, home, show_json
from autoglm_ops.contracts.record import write_text
from autoglm_ops.contracts.serving import FeedbackCounts, FeedbackItem, Unsure
from autoglm_ops.errors import UsageError
from autoglm_ops.feedback import annotation
from autoglm_ops.feedback.intake import FIRST_DAY, LAST_DAY, Intake
from autoglm_ops.settings import load
from autoglm_ops.stages import serving


def annotate(
    to: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the queue there (CSV or JSONL), to be filled in.")
    ] = None,
    take: Annotated[Path | None, typer.Option("--from", metavar="FILE", help="Read labels back from such a file.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="How many answers at most.")] = 20,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who labels. Default: the name of this user.")] = None,
    since: Since = None,
    until: Until = None,
    as_json: AsJson = False,
) -> None:
    """Label the answers a label is worth most for: disputed ones, then disliked ones, then those the model was least sure of.

    Asks in the terminal, one text after another, or goes by way of a file. What you say is feedback like any other, under your name.
    """
    if to is not None and take is not None:
        raise UsageError("give --to or --from, not both: the file has to be filled in between")
    requests = serving.requests(load(checkout() / "params.yaml"), home())
    source = f"annotator:{by or re.sub(r'[^A-Za-z0-9._-]', '-', getpass.getuser())[:40] or 'me'}"
    if take is not None:
        _told(_keep(requests, annotation.read_back(take, source)), as_json)
        return
    queue = requests.unsure(limit, day(since, FIRST_DAY), day(until, LAST_DAY))
    if to is not None:
        write_text(to, annotation.written(queue, Format.JSONL if to.suffix == ".jsonl" else Format.CSV))
        Console(stderr=True).print(
            f"{len(queue)} answers in {to}; fill in the column label, then: autoglm annotate --from {to}"
        )
    elif as_json or not sys.stdin.isatty():
        show_json([row.model_dump() for row in queue])
    else:
        _told(_keep(requests, _asked(queue, requests.labels(), source)), as_json)


def _asked(queue: list[Unsure], labels: list[str], source: str) -> list[FeedbackItem]:
    """Ask for each label in turn; empty skips, q ends."""
    menu, items = "  ".join(f"{number} {label}" for number, label in enumerate(labels, start=1)), []
    for place, row in enumerate(queue, start=1):
        print(f"\n[{place}/{len(queue)}] {row.reason}, answered {row.predicted} ({row.score:.2f}), {row.day}\n  {row.text}")
        while (said := input(f"  {menu}  (enter skips, q ends): ").strip()) not in {"", "q", *labels} and not (
            said.isdigit() and 1 <= int(said) <= len(labels)
        ):
            print(f"  {said!r} is none of these")
        if said == "q":
            break
        if said:
            items.append(FeedbackItem(id=row.id, source=source, label=said if said in labels else labels[int(said) - 1]))
    return items


def _keep(requests: Intake, items: list[FeedbackItem]) -> FeedbackCounts:
    """As the server keeps it: only labels that were ever answered or given count as known."""
    labels = frozenset(requests.labels())
    return requests.feedback(items, time.time(), labels or None) if items else FeedbackCounts()


def _told(counts: FeedbackCounts, as_json: bool) -> None:
    if as_json:
        show_json(counts.model_dump())
        return
    refused = ", ".join(f"{count} {word}" for word, count in sorted(counts.refused.items()))
    print(
        f"{counts.accepted} labels kept, {counts.replaced} changed, {counts.repeated} known already, {counts.unknown} of unknown answers"
        + (f"; refused: {refused}" if refused else "")
    )


def add_to(app: typer.Typer) -> None:
    app.command()(annotate)
