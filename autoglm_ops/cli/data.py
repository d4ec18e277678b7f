"""`autoglm data`: raw text to a dataset, what is in a folder, and how two datasets differ."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from autoglm_ops.cli import data_follow, data_versions
from autoglm_ops.cli.shared import AsJson, Configs, Overrides, checkout, home, show_json
from autoglm_ops.contracts.flow import BuiltDataset, LocationProfile
from autoglm_ops.contracts.record import write_text
from autoglm_ops.settings import load

data = typer.Typer(
    help="The data engine: raw text in a folder, a bucket or at a URL becomes a clean, deduplicated, versioned dataset.",
    no_args_is_help=True,
)
Location = Annotated[
    str | None,
    typer.Argument(metavar="[LOCATION]", help="A path, s3://bucket/prefix or https://host/file. Default: flow.location."),
]


class Phase(StrEnum):
    READ = "read"
    MATCH = "match"
    VERIFY = "verify"
    SETTLE = "settle"
    WEIGH = "weigh"
    WRITE = "write"
    FINISH = "finish"


@data.command()
def build(
    location: Location = None,
    jobs: Annotated[int, typer.Option(min=1, help="Processes. Default: one a core.")] = os.cpu_count() or 1,
    sets: Overrides = None,
    configs: Configs = None,
    as_json: AsJson = False,
) -> None:
    """Build a dataset: read, run flow.steps, drop repeats, cap and mix sources, and account for every document.

    Killed and started again it goes on where it was. The dataset's name is the digest of its content; train on it with
    data.path = .autoglm/datasets/<digest>.
    """
    from autoglm_ops.stages import dataset, dataset_suite

    settings = load(checkout() / "params.yaml", overrides=sets or (), configs=configs or ())
    console = Console(stderr=True, highlight=False)
    started = time.monotonic()
    where = dataset.location(settings, location, checkout())
    place = dataset.Place(home(), checkout(), dataset_suite.check(settings, checkout(), home(), where))
    work = dataset.open_build(settings, where, home(), checkout())
    columns = (TextColumn("{task.description:8}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, disable=as_json) as progress:
        bars: dict[str, int] = {}

        def watch(phase: str, done: int, total: int) -> None:
            if total and phase not in bars:
                bars[phase] = progress.add_task(phase, total=total)
            if phase in bars:
                progress.update(bars[phase], completed=done)  # type: ignore[arg-type]

        built = dataset.build(settings, work, place, jobs, watch)
    if as_json:
        show_json(_summary(built) | {"path": str(dataset.datasets(home()) / built.digest)})
    else:
        _say(built, time.monotonic() - started)


@data.command()
def plan(location: Location = None, sets: Overrides = None, configs: Configs = None, as_json: AsJson = False) -> None:
    """List a location's files, cut them into shards, and print the work folder: for those who run the tasks one by one."""
    from autoglm_ops.data.build.whole import numbers
    from autoglm_ops.stages import dataset

    settings = load(checkout() / "params.yaml", overrides=sets or (), configs=configs or ())
    work = dataset.open_build(settings, dataset.location(settings, location, checkout()), home(), checkout())
    said = {"work": work.name, "shards": len(numbers(work, "read"))}
    show_json(said) if as_json else print(f"{said['work']}: {said['shards']} shards")


@data.command()
def task(
    work: Annotated[str, typer.Argument(help="The work folder's name, as `autoglm data plan` prints it.")],
    phase: Annotated[Phase, typer.Argument(help="What to do.")],
    number: Annotated[int, typer.Argument(min=0, help="Which shard, or for match which range of keys.")] = 0,
    here: Annotated[bool, typer.Option("--here", help="In this process, whatever cluster.stages says.")] = False,
    sets: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Run one task of a build. One that is done does nothing; `finish` publishes the dataset.

    Where cluster.stages names `dataset`, the tasks of one shard (read, weigh, write) are jobs where `cluster` says.
    """
    from autoglm_ops.data.build import whole
    from autoglm_ops.data.build.plan import read_plan
    from autoglm_ops.stages import dataset, dataset_away, dataset_suite

    settings, folder = load(checkout() / "params.yaml", overrides=sets or ()), dataset.work_folder(home(), work)
    if phase is Phase.FINISH:
        check = dataset_suite.check(settings, checkout(), home(), read_plan(folder).location)
        place = dataset.Place(home(), checkout(), check)
        built = dataset.close_build(folder, place)
        show_json(_summary(built)) if as_json else _say(built)
        return
    if dataset.is_finished(folder, home()):
        pass
    elif not here and dataset_away.leaves(phase.value, folder, settings):
        dataset_away.task(home(), folder, phase.value, number, settings)
    else:
        whole.task(folder, phase.value, number, dataset.limits(settings))
    said = {"phase": phase.value, "number": number}
    show_json(said) if as_json else print(f"{phase.value} {number}: done")


@data.command()
def numbers(
    work: Annotated[str, typer.Argument(help="The work folder's name, as `autoglm data plan` prints it.")],
    phase: Annotated[Phase, typer.Argument(help="Of what.")],
    as_json: AsJson = False,
) -> None:
    """List the tasks of a phase by number. Those of `match` are known when every `read` is done."""
    from autoglm_ops.data.build import whole
    from autoglm_ops.stages import dataset

    folder = dataset.work_folder(home(), work)
    found = [] if dataset.is_finished(folder, home()) else list(whole.numbers(folder, phase.value))
    show_json({"numbers": found}) if as_json else print(*found)


@data.command()
def listing(location: Location = None, sets: Overrides = None, as_json: AsJson = False) -> None:
    """Print a digest of the location's file names, sizes and ETags: another one means new data. Reads no file."""
    settings = load(checkout() / "params.yaml", overrides=sets or ())
    found: str | None = None
    if location or settings.flow.location:
        from autoglm_ops.stages import dataset

        found = dataset.listing_of(settings, dataset.location(settings, location, checkout()))
    show_json({"listing": found}) if as_json else print(
        found or "nothing to look at: flow.location is null, or holds no file of a known format"
    )


@data.command("list")
def list_datasets(
    ask: Annotated[bool, typer.Option("--where", help="Ask the artefact store which of them it holds.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show every dataset that is here, newest first."""
    from autoglm_ops.stages import dataset, dataset_store

    found = dataset.listed(home())
    held = dataset_store.stored(load(checkout() / "params.yaml"), home(), [built.digest for built in found]) if ask else set()
    if as_json:
        show_json([_summary(built) | ({"stored": built.digest in held} if ask else {}) for built in found])
        return
    table = Table("dataset", "documents", "characters", "dropped", "quarantined", "files", *["where"] * ask, box=None)
    for built in found:
        gone = [sum(counts.values()) for counts in (built.dropped, built.quarantined)]
        where = ["here, store" if built.digest in held else "here"] * ask
        counts = (built.kept, built.characters, *gone, built.files)
        table.add_row(built.digest[:16], *(f"{n:,}" for n in counts), *where)
    Console(highlight=False).print(table if found else "no datasets yet; `autoglm data build LOCATION` makes one")


@data.command()
def diff(
    before: Annotated[str, typer.Argument(help="The older dataset: the beginning of its digest.")],
    after: Annotated[str, typer.Argument(help="The newer one.")],
    as_json: AsJson = False,
) -> None:
    """Compare two datasets: texts that came and went, sources, labels, reasons, and how far the texts moved (PSI, KL)."""
    from autoglm_ops.stages import dataset

    settings = load(checkout() / "params.yaml")
    old, new = (dataset.find(home(), name) for name in (before, after))
    found, moved = dataset.difference(settings, old, new)
    reasons = _paired(dataset.record(old).dropped, dataset.record(new).dropped)
    if as_json:
        show_json({**found._asdict(), "dropped": reasons, "drift": [item.model_dump(mode="json") for item in moved]})
        return
    console = Console(highlight=False)
    console.print(f"texts   {found.common:,} in both, {found.removed:,} gone, {found.added:,} new")
    for title, pairs in (("source", found.sources), ("label", found.labels), ("dropped", reasons)):
        if pairs:
            console.print(_pairs(title, pairs))
    for item in moved:
        mark = "drifted" if item.drifted else "steady"
        console.print(f"{item.feature:10} {item.kind} {item.value:.3f} (limit {item.threshold:g}): {mark}")


@data.command()
def profile(
    location: Location = None,
    page: Annotated[Path | None, typer.Option("--html", metavar="FILE", help="Write the same as a page.")] = None,
    most: Annotated[int, typer.Option("--mb", min=1, help="Read at most about this much, spread over the whole.")] = 1024,
    sets: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Say what a location holds before anyone spends an hour on it: rows, lengths, languages, repeats, labels, personal data."""
    from autoglm_ops.cli.data_page import html, tables
    from autoglm_ops.stages import dataset

    settings = load(checkout() / "params.yaml", overrides=sets or ())
    found: LocationProfile = dataset.look(settings, dataset.location(settings, location, checkout()), most << 20)
    if page is not None:
        write_text(page, html(found))
    if as_json:
        show_json(found.model_dump(mode="json"))
        return
    console = Console(highlight=False)
    for title, rows in tables(found):
        shown = Table(title, "", box=None)
        for name, value in rows:
            shown.add_row(name, value)
        console.print(shown)


def _summary(built: BuiltDataset) -> dict[str, object]:
    return built.model_dump(mode="json", exclude={"recipe", "parts"}) | {"parts": len(built.parts)}


def _say(built: BuiltDataset, seconds: float | None = None) -> None:
    console = Console(highlight=False)
    console.print(f"dataset      {built.digest}")
    console.print(
        f"documents    {built.seen:,} seen, {built.kept:,} kept, in {len(built.parts)} parts; {built.characters:,} characters"
    )
    for title, counts in (("dropped", built.dropped), ("quarantined", built.quarantined), ("masked", built.masked)):
        told = ", ".join(f"{word} {count:,}" for word, count in sorted(counts.items(), key=lambda item: -item[1]) if count)
        console.print(f"{title:12} {told or 'none'}", soft_wrap=True)
    if seconds:
        console.print(f"{built.bytes / 1e6:,.1f} MB of {built.files} files in {seconds:.1f} s")


def _paired(old: Mapping[str, int], new: Mapping[str, int]) -> dict[str, tuple[int, int]]:
    return {name: (old.get(name, 0), new.get(name, 0)) for name in sorted({*old, *new})}


def _pairs(title: str, pairs: Mapping[str, tuple[int, int]]) -> Table:
    table = Table(title, "before", "after", "change", box=None)
    for name, (old, new) in pairs.items():
        table.add_row(name or "-", f"{old:,}", f"{new:,}", f"{new - old:+,}")
    return table


def add_to(app: typer.Typer) -> None:
    data_versions.add_to(data)
    data_follow.add_to(data)
    app.add_typer(data, name="data")
