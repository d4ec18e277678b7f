"""`autoglm data show | push | pull | track | pack`: a dataset version, where it came from, what was trained on it, and where else it is kept."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import Progress

from autoglm_ops.cli.shared import AsJson, checkout, home, show_json
from autoglm_ops.contracts.flow import Provenance, SuiteReport
from autoglm_ops.settings import load

Version = Annotated[str, typer.Argument(metavar="VERSION", help="The dataset: the beginning of its digest.")]


def show(version: Version, as_json: AsJson = False) -> None:
    """Say what a dataset is: its recipe, who built it from what, what its validation saw, and the runs and models trained on it."""
    from autoglm_ops.stages import dataset, dataset_lineage, dataset_suite

    folder = dataset.find(home(), version)
    built, origin = dataset.record(folder), dataset_lineage.provenance(folder)
    report = dataset_suite.report(folder)
    trained = dataset_lineage.trained(built, home(), checkout())
    if as_json:
        records = {"dataset": built, "built": origin, "validation": report}
        shown: dict[str, Any] = {name: record and record.model_dump(mode="json") for name, record in records.items()}
        show_json(shown | {"path": str(folder), "trained": [item._asdict() for item in trained]})
        return
    steps = [f"{step.name} {step.options}" if step.options else step.name for step in built.recipe.steps]
    runs = [f"{item.run} ({item.model})" if item.model else item.run for item in trained]
    lines = {
        "dataset": built.digest,
        "path": str(folder),
        "documents": f"{built.kept:,} of {built.seen:,}, in {len(built.parts)} parts; {built.characters:,} characters",
        "steps": ", ".join(steps) or "none",
        "dedup": _options(built.recipe.dedup),
        "thinned": _options({"source_cap": built.recipe.source_cap, "mix": built.recipe.mix}),
        **{title: _options(getattr(built, title)) for title in ("dropped", "quarantined", "masked", "sources")},
        "built": _origin(origin),
        "validation": _verdict(report),
        **({"drift": _drift(report)} if report and report.against else {}),
        "trained": ", ".join(runs) or "no run that is known here",
    }
    console = Console(highlight=False)
    for title, text in lines.items():
        console.print(f"{title:12} {text}", soft_wrap=True, markup=False)


def push(version: Version, as_json: AsJson = False) -> None:
    """Copy a dataset to the artefact store (store.uri), checked and once: any machine can then pull it by its digest."""
    from autoglm_ops.stages import dataset, dataset_store

    built = dataset_store.push(load(checkout() / "params.yaml"), dataset.find(home(), version), home())
    show_json({"dataset": built.digest}) if as_json else print(f"stored; elsewhere: autoglm data pull {built.digest}")


def pull(
    version: Annotated[str, typer.Argument(metavar="DIGEST", help="The whole digest, as `autoglm data push` prints it.")],
    as_json: AsJson = False,
) -> None:
    """Fetch a dataset from the artefact store (store.uri), every file checked. One that is here is checked and stays."""
    from autoglm_ops.stages import dataset, dataset_store

    built = dataset_store.pull(load(checkout() / "params.yaml"), version, home())
    folder = dataset.datasets(home()) / built.digest
    show_json({"dataset": built.digest, "path": str(folder)}) if as_json else print(folder)


def track(
    version: Version,
    name: Annotated[str, typer.Option(help="What the dataset is called in this checkout.")] = "corpus",
    as_json: AsJson = False,
) -> None:
    """Put a dataset under DVC, as inputs/datasets/NAME: commit its .dvc file, and `dvc push`, `pull` and `checkout` move the bytes.

    Train on it with data.path = inputs/datasets/NAME. `git checkout COMMIT` and `dvc checkout` bring an older version back.
    """
    from autoglm_ops.stages import dataset, dataset_track

    folder = dataset.find(home(), version)
    pointer = dataset_track.track(folder, name, checkout())
    digest, where = dataset.record(folder).digest, dataset_track.WHERE / name
    if as_json:
        show_json({"dataset": digest, "path": str(where), "pointer": str(pointer.relative_to(checkout()))})
        return
    shown = pointer.relative_to(checkout())
    print(f"{where} is dataset {digest[:16]}; now: git add {shown} {where.parent / '.gitignore'} && git commit, then dvc push")


def pack(
    version: Version,
    tokenizer: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where the tokenizer lies: tokenizer.json and its configuration.")
    ],
    length: Annotated[int, typer.Option(min=1, max=1 << 20, help="Tokens of a sequence.")] = 2048,
    end: Annotated[str | None, typer.Option(metavar="TOKEN", help="A token to put behind every document.")] = None,
    as_json: AsJson = False,
) -> None:
    """Tokenise a dataset and pack it into sequences of one length, as few of them and as little cut as best fit gives.

    Writes memory-mapped arrays: token ids, and which document of its row each is of, so that attention need not cross documents.
    """
    from autoglm_ops.stages import dataset, dataset_pack

    console = Console(stderr=True, highlight=False)
    with Progress(*Progress.get_default_columns(), console=console, disable=as_json) as progress:
        bar = progress.add_task("parts", total=None)
        found, where = dataset_pack.packed(
            dataset.find(home(), version),
            tokenizer,
            length,
            end,
            home(),
            lambda done, of: progress.update(bar, completed=done, total=of),
        )
    if as_json:
        show_json(found.model_dump(mode="json", exclude={"files"}) | {"path": str(where)})
        return
    share = found.tokens / max(found.rows * found.length, 1)
    print(
        f"{found.documents:,} documents, {found.tokens:,} tokens in {found.rows:,} sequences of {found.length} ({share:.1%} full): {where}"
    )


def _drift(report: SuiteReport) -> str:
    said = [f"{item.kind} of {item.feature} {item.value:.3f}{' (drifted)' if item.drifted else ''}" for item in report.drift]
    return f"{', '.join(said) or 'too few documents'}, against {(report.against or '')[:16]}"


def _options(values: dict[str, Any] | None) -> str:
    return ", ".join(f"{name} {value}" for name, value in (values or {}).items() if value) or "none"


def _origin(found: Provenance | None) -> str:
    if found is None:
        return "unknown: it came without _built.json"
    when = datetime.fromtimestamp(found.built, UTC).strftime("%Y-%m-%d %H:%M UTC")
    commit = f"commit {found.commit}" + (" with changes" if found.changed else "") if found.commit else "no commit"
    return f"{when} from {found.location} by autoglm {found.version}, {commit}"


def _verdict(report: SuiteReport | None) -> str:
    if report is None:
        return "none was asked for"
    return f"{report.verdict} by {report.suite}: {len(report.expectations)} expectations on {report.looked:,} of {report.rows:,} documents"


def add_to(data: typer.Typer) -> None:
    for command in (show, push, pull, track, pack):
        data.command()(command)
