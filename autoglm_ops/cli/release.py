"""`autoglm promote | rollback | ledger`: the champion in a person's hands. Every move is in the ledger, with who and why."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table

from autoglm_ops.cli.shared import AsJson, checkout, home, show_json
from autoglm_ops.errors import UsageError

if TYPE_CHECKING:
    from autoglm_ops.contracts.release import ModelRef, Promotion
    from autoglm_ops.release.moves import Moved

Why = Annotated[str | None, typer.Option("--reason", metavar="TEXT", help="Why, in a few words; it goes into the ledger.")]


def promote(
    version: Annotated[int | None, typer.Argument(min=1, help="The registered version that shall be champion.")] = None,
    option: Annotated[int | None, typer.Option("--version", min=1, help="The same, as an option.")] = None,
    reason: Why = None,
    as_json: AsJson = False,
) -> None:
    """Make a registered version champion by hand, whatever the gate said of it.

    Its bytes are fetched from the store and checked first; servers pick the change up by themselves. `autoglm rollback` undoes it.
    """
    from autoglm_ops.stages.handmade import promote_by_hand

    number = option if version is None else version
    if number is None or option not in (None, number):
        raise UsageError("name one version: autoglm promote 3; `autoglm ledger` shows who was champion")
    _answer(promote_by_hand(checkout(), number, _actor(), reason or "promoted by hand"), "is champion", as_json=as_json)


def rollback(
    version: Annotated[int | None, typer.Option("--version", min=1, help="An earlier champion; default: the last one.")] = None,
    reason: Why = None,
    as_json: AsJson = False,
) -> None:
    """Bring back the champion before this one, as the ledger tells it. A model that was taken back is not promoted again by a run."""
    from autoglm_ops.stages.handmade import roll_back

    _answer(roll_back(checkout(), version, _actor(), reason or "rolled back by hand"), "is champion again", as_json=as_json)


def ledger(
    at: Annotated[
        str | None, typer.Option("--at", metavar="TIME", help="Who was champion then? ISO date or time, UTC.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show who was champion when, and why. The chain of lines is checked; a changed line is named and refused (exit 3)."""
    from autoglm_ops.release.promotion import champion_at, label
    from autoglm_ops.stages.handmade import checked_lines

    lines = checked_lines(checkout())
    if at is not None:
        champion = champion_at(lines, _time(at))
        if as_json:
            show_json({"at": at, "champion": champion.model_dump(mode="json") if champion else None})
        else:
            print(f"{at}: {label(champion)}")
    elif as_json:
        show_json({"verified": True, "lines": [line.model_dump(mode="json") for line in lines]})
    else:
        Console(highlight=False).print(_table(lines) if lines else "the ledger is empty: nothing was ever promoted")


def add_to(app: typer.Typer) -> None:
    app.command()(promote)
    app.command()(rollback)
    app.command()(ledger)


def _answer(moved: Moved, what: str, *, as_json: bool) -> None:
    from autoglm_ops.release.promotion import label

    if as_json:
        model, replaced = (
            moved.model.model_dump(mode="json"),
            moved.replaced.model_dump(mode="json") if moved.replaced else None,
        )
        show_json({"model": model, "replaced": replaced, "changed": not moved.again, "reasons": moved.reasons})
    elif moved.again:
        print(f"nothing to do: {'; '.join(moved.reasons)}")
    else:
        print(f"{label(moved.model)} {what}; before: {label(moved.replaced)}. Written to {home() / 'ledger.jsonl'}.")


def _table(lines: list[Promotion]) -> Table:
    """One row a line. Of the reasons only the codes: the whole is in `--json`."""
    table = Table("", "when (UTC)", "what", "champion", "before", "by", "run", "why", box=None, padding=(0, 2, 0, 0))
    for column in table.columns[:-1]:
        column.no_wrap = True
    for number, line in enumerate(lines, start=1):
        when = datetime.fromtimestamp(line.at, UTC).strftime("%Y-%m-%d %H:%M")
        why = ", ".join(reason.partition(":")[0] for reason in line.reasons)
        table.add_row(
            str(number), when, line.action, _short(line.model), _short(line.replaced), line.actor, line.run[:8] or "-", why
        )
    return table


def _short(model: ModelRef | None) -> str:
    return f"v{model.version}" if model else "-"


def _time(text: str) -> float:
    try:
        when = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"--at {text!r} is no ISO date or time, such as 2026-01-31 or 2026-01-31T12:00:00") from error
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _actor() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "unknown"
