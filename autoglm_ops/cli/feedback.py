"""`autoglm feedback`: what production said, and getting it out."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, date, datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from autoglm_ops.cli.shared import AsJson, home, show_json
from autoglm_ops.contracts.record import write_text
from autoglm_ops.contracts.serving import DayTally, LabelledRow, SourceTally
from autoglm_ops.errors import UsageError
from autoglm_ops.feedback.arms import compare
from autoglm_ops.feedback.intake import FIRST_DAY, LAST_DAY, Intake
from autoglm_ops.feedback.operations import quantile
from autoglm_ops.stages.serving import requests_path

feedback = typer.Typer(
    help="What production said of the answers: labels returned through /v1/feedback, by day and by source.",
    no_args_is_help=True,
)

Since = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="First day (of the event) to include. Default: all.")]
Until = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD", help="Last day (of the event) to include. Default: all.")]


class Format(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"


@feedback.command()
def status(as_json: AsJson = False) -> None:
    """Count answers and returned labels, day by day and source by source.

    `right` is the share of the labelled answers that were; `disputed` ones have sources that disagree evenly, and train nothing.
    Sources that stand against the others of a day are named: their labels of that day train nothing either.
    """
    intake = Intake(requests_path(home()))
    days, sources, gone = intake.days(), intake.sources(), intake.distrusted()
    if as_json:
        told: dict[str, object] = {"days": [day.model_dump() for day in days]}
        told["sources"] = [source.model_dump() for source in sources]
        show_json({**told, "distrusted": [{"day": key[0], "source": key[1], "reason": why} for key, why in gone.items()]})
    elif not days:
        Console().print("nothing was asked yet; `autoglm serve` answers requests and remembers them")
    else:
        Console().print(_days(days), "", _sources(sources))
        for (when, source), why in gone.items():
            Console().print(f"not believed on {when}: {source}, {why}")


@feedback.command()
def export(
    to: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="File to write; standard output without one.")] = None,
    form: Annotated[Format | None, typer.Option("--format", help="Default: the file's ending, else jsonl.")] = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write the labelled answers: id, text, label, predicted, score, day, version, source, weight.

    The file is a dataset: name it in params.yaml (data.path, with data.columns.timestamp: day), or label it further by hand.
    """
    rows = Intake(requests_path(home())).labelled(day(since, FIRST_DAY), day(until, LAST_DAY))
    chosen = form or (Format.CSV if to is not None and to.suffix == ".csv" else Format.JSONL)
    text = _csv(rows) if chosen is Format.CSV else "".join(_json(row) for row in rows)
    if to is None:
        print(text, end="")
        return
    write_text(to, text)
    Console(stderr=True).print(f"{len(rows)} labelled rows in {to}")


@feedback.command()
def arms(since: Since = None, until: Until = None, as_json: AsJson = False) -> None:
    """Compare the versions that answered live traffic: right answers by user, latency, ratings.

    `autoglm serve --challenger models:/NAME/VERSION --share 0.1` answers a tenth of the users with another model.
    """
    requests, span = Intake(requests_path(home())), (day(since, FIRST_DAY), day(until, LAST_DAY))
    told, liked = compare(requests.arms(*span)), requests.liked(*span)
    slow = {row.version: quantile(requests.served(*span), row.version) for row in told.arms}
    if as_json:
        show_json({**told.model_dump(), "liked": liked, "seconds": slow})
        return
    table = Table("version", "judged", "users", "right", "95 % interval", "95 % within", "liked", box=None)
    for arm in told.arms:
        good, rated = liked.get(arm.version, (0, 0))
        seconds = slow[arm.version]
        interval = f"{arm.right.low:.3f} to {arm.right.high:.3f}"
        cells = [f"v{arm.version}", str(arm.rows), str(arm.units), f"{arm.right.estimate:.3f}", interval]
        table.add_row(*cells, "-" if seconds is None else f"{seconds:.3g} s", f"{good} of {rated}" if rated else "-")
    Console().print(table, told.reason)


def add_to(app: typer.Typer) -> None:
    app.add_typer(feedback, name="feedback")


def day(text: str | None, default: str) -> str:
    """An ISO day, checked."""
    try:
        return date.fromisoformat(text).isoformat() if text else default
    except ValueError as error:
        raise UsageError(f"{text!r} is not a day; write it as YYYY-MM-DD") from error


def _json(row: LabelledRow) -> str:
    return json.dumps(row.model_dump(), ensure_ascii=False) + "\n"


def _csv(rows: list[LabelledRow]) -> str:
    sink = io.StringIO()
    flat = [name for name in LabelledRow.model_fields if name != "sources"]  # a list, which a cell is not: JSON has it
    writer = csv.DictWriter(sink, flat, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row.model_dump(include=set(flat)) for row in rows)
    return sink.getvalue()


def _days(days: list[DayTally]) -> Table:
    table = Table("day", "answers", "labelled", "right", "disputed", box=None)
    for day in days:
        right = f"{day.correct / day.labelled:.3f}" if day.labelled else "-"
        table.add_row(day.day, str(day.predictions), str(day.labelled), right, str(day.disputed))
    return table


def _sources(sources: list[SourceTally]) -> Table:
    table = Table("source", "labels", "ratings", "last heard (UTC)", box=None)
    for source in sources:
        last = datetime.fromtimestamp(source.last, UTC).strftime("%Y-%m-%d %H:%M")
        table.add_row(source.source, str(source.labels), str(source.ratings), last)
    return table
