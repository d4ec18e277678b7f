"""`autoglm monitor`, and the loop's steps below `autoglm feedback`: collect, drift, signals, patch, undo, patches, prune."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated

import typer

from autoglm_ops.cli import feedback
from autoglm_ops.cli.runs import day
from autoglm_ops.cli.shared import AsJson, AsOfDay, checkout, home, show_json
from autoglm_ops.contracts.feedback import SearchSpacePatch
from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.settings import Settings, load
from autoglm_ops.stages import loop


def monitor(as_of: AsOfDay = None, as_json: AsJson = False) -> None:
    """Judge the champion on the day's labelled requests: drift, quality, and the alerts they give."""
    found, alerts = loop.monitor(_settings(), home(), _day(as_of), checkout())
    if as_json:
        show_json({**found.model_dump(mode="json"), "alerts": [alert.model_dump(mode="json") for alert in alerts]})
        return
    _show_signals(found)
    for alert in alerts:
        print(f"{alert.severity}: {alert.name}: {alert.message}")


def collect(as_of: AsOfDay = None, as_json: AsJson = False) -> None:
    """Put the labels that production returned into the store, for the next run's snapshot."""
    taken = loop.collect(_settings(), home(), _day(as_of))
    if as_json:
        show_json(taken.model_dump(mode="json"))
    else:
        print(f"{taken.rows} labelled rows until {taken.until or 'nothing yet'}")


def drift(as_of: AsOfDay = None, as_json: AsJson = False) -> None:
    """Compare a day's requests, labelled or not, with the texts the champion was trained on."""
    moved = loop.drift(_settings(), home(), _day(as_of))
    if as_json:
        show_json(moved.model_dump(mode="json"))
        return
    print(f"{moved.day}: {moved.asked} requests, {moved.labelled} labelled{': ' + moved.reason if moved.reason else ''}")
    for one in moved.drift:
        print(
            f"  {'DRIFT' if one.drifted else 'quiet'}  {one.kind} of {one.feature} {one.value:.3f}, at most {one.threshold:g}"
        )


def prune(
    as_of: AsOfDay = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Count, and forget nothing.")] = False,
) -> None:
    """Forget answers older than feedback.keep_days that nobody said anything of. `collect` does so too."""
    count = loop.prune(_settings(), home(), _day(as_of), dry=dry_run)
    print(f"{count} answers {'would be ' if dry_run else ''}forgotten")


def signals(as_of: AsOfDay = None, as_json: AsJson = False) -> None:
    """Say what fired on a day: quality, drift, latency, errors, cost, variance, each with the evidence it stands on."""
    found = loop.signals(_settings(), home(), _day(as_of), checkout())
    if as_json:
        show_json(found.model_dump(mode="json"))
    else:
        _show_signals(found)


def patch(
    as_of: AsOfDay = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")] = False,
    as_json: AsJson = False,
) -> None:
    """Turn a day's signals into bounded, reversible changes of what the next study may search."""
    compiled = loop.patch(_settings(), home(), _day(as_of), checkout(), dry=dry_run)
    if as_json:
        show_json([item.model_dump(mode="json") for item in compiled.patches])
        return
    _show_patches(compiled.patches)
    for refusal in compiled.refused:
        print(f"  left alone: {refusal.key} ({refusal.word}): {refusal.reason}")


def undo(
    count: Annotated[int, typer.Argument(min=1, help="How many of the patches in force, newest first.")] = 1,
    as_of: AsOfDay = None,
    as_json: AsJson = False,
) -> None:
    """Take back the last patches. An undo is a line of the history too."""
    undone = loop.history(home()).undo(count, _day(as_of))
    if as_json:
        show_json([item.model_dump(mode="json") for item in undone])
    else:
        _show_patches(undone)


def patches(as_of: AsOfDay = None, as_json: AsJson = False) -> None:
    """Show the patches in force on a day."""
    active = loop.history(home()).active(_day(as_of)).patches
    if as_json:
        show_json([item.model_dump(mode="json") for item in active])
    else:
        _show_patches(active)


def _settings() -> Settings:
    return load(checkout() / "params.yaml")


def _day(text: str | None) -> date:
    return day(text) or datetime.now(UTC).date()


def _show_signals(found: SignalsOfDay) -> None:
    model = found.champion.model
    print(
        f"{found.day}: {f'champion v{model.version}' if model else 'no champion'}{': ' + found.reason if found.reason else ''}"
    )
    for signal in found.signals:
        print(f"  {'FIRED' if signal.fired else 'quiet'}  {signal.name}: {signal.reason}")


def _show_patches(items: tuple[SearchSpacePatch, ...]) -> None:
    for item in items:
        print(f"{item.key}: {item.old} -> {item.new}  ({item.signal}; until {item.expires})\n  {item.reason}")
    if not items:
        print("no patches")


for command in (collect, drift, signals, patch, undo, patches, prune):
    feedback.feedback.command()(command)


def add_to(app: typer.Typer) -> None:
    app.command()(monitor)
