"""The data engine wired to the settings: a build, its tasks one by one, what a location holds, and how two datasets differ."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from autoglm_ops.contracts.feedback import DriftReport
from autoglm_ops.contracts.flow import BuiltDataset, LocationProfile, Recipe, StepSpec
from autoglm_ops.data.build.finish import RECORD, Check, finish, finished, load
from autoglm_ops.data.build.folders import frames
from autoglm_ops.data.build.plan import is_cuttable, listing, plan, shape_of
from autoglm_ops.data.build.whole import Watch, run
from autoglm_ops.data.compare import Difference, compare
from autoglm_ops.data.profile import profile as profile_of
from autoglm_ops.data.readers import Limits, Rejected, read, survey
from autoglm_ops.data.readers import plan as cut
from autoglm_ops.data.steps.contamination import Protected
from autoglm_ops.errors import BadData, SettingsError, UsageError
from autoglm_ops.monitoring.drift import drift, profile
from autoglm_ops.settings import Settings
from autoglm_ops.stages import dataset_lineage

LOOK_SHARD = 16 << 20
DRIFT_ROWS = 20_000  # texts of each side that are compared: the standard error of a share is then below 0.4 points


def recipe(settings: Settings) -> Recipe:
    """The section `flow` as what decides a build."""
    flow = settings.flow
    return Recipe(
        columns=settings.data.columns.model_dump(),
        epoch=settings.data.epoch.isoformat(),
        document=flow.document,
        steps=tuple(_step(item) for item in flow.steps),
        dedup=_dedup(settings) if flow.dedup.enabled else None,
        source_cap=flow.source_cap,
        mix=dict(flow.mix),
        seed=settings.seed,
        shard_bytes=flow.shard_mb << 20,
    )


def limits(settings: Settings) -> Limits:
    """What a reader may spend, and whom it may ask."""
    return Limits(hosts=settings.flow.http_hosts, document=settings.flow.document)


def location(settings: Settings, given: str | None, origin: Path) -> str:
    """The raw text's place: the command line's, else flow.location; a path counts from the checkout. Raises UsageError."""
    where = given or settings.flow.location
    if where is None:
        raise UsageError("name the raw text: autoglm data build PATH, or flow.location in params.yaml")
    return where if "://" in where else str(origin / Path(where).expanduser())


def open_build(settings: Settings, where: str, home: Path, origin: Path) -> Path:
    """The work folder of a build, made or found again."""
    return plan(where, recipe(settings), home / "scratch", limits(settings), protected(settings, origin))


def protected(settings: Settings, origin: Path) -> Protected | None:
    """The n-grams of every text in flow.protect; None when it is empty. Raises BadData when one of them holds no text, or a bad row."""
    if not settings.flow.protect:
        return None
    return Protected.of(
        frame["text"] for place in settings.flow.protect for frame in _documents(settings, location(settings, place, origin))
    )


def _documents(settings: Settings, where: str) -> Iterator[pl.DataFrame]:
    """Every document there. A test set that is half read would be half protected, so a bad row is an error here."""
    bounds, place = limits(settings), survey(where, limits(settings))
    made = recipe(settings)
    rows = 0
    for shard in cut(place.blobs, LOOK_SHARD, cut=is_cuttable(where, made)):
        for item in read(shard, where, shape_of(made), bounds):
            if isinstance(item, Rejected):
                if item.reason == "blank-line":
                    continue
                raise BadData(
                    f"flow.protect: {where} holds a bad row: {item.source}, line {item.line}: {item.reason}; correct it",
                    (item.reason,),
                )
            rows += item.height
            yield item
    if not rows:
        raise BadData(
            f"flow.protect: {where} holds no text, so it protects nothing; name the test set, or leave it out", ("no-text",)
        )


def work_folder(home: Path, name: str) -> Path:
    """The work folder called `name`. Raises UsageError when there is none: it was never planned, or its dataset is finished."""
    folder = home / "scratch" / name
    if not name.startswith("build-") or "/" in name or not (folder / "plan.json").exists():
        raise UsageError(
            f"no build is called {name!r}: it was never planned, or is finished; `autoglm data plan LOCATION` begins one"
        )
    return folder


class Place(NamedTuple):
    """Where a build leaves its dataset, what it asks of it before, and the checkout it is built with."""

    home: Path
    origin: Path
    check: Check


def build(settings: Settings, work: Path, place: Place, jobs: int, watch: Watch) -> BuiltDataset:
    """All of it, on this machine."""
    return _noted(run(work, datasets(place.home), limits(settings), jobs, watch, place.check), work, place)


def close_build(work: Path, place: Place) -> BuiltDataset:
    """The last task, for those who ran the others one by one."""
    return _noted(finish(work, datasets(place.home), place.check), work, place)


def _noted(built: BuiltDataset, work: Path, place: Place) -> BuiltDataset:
    dataset_lineage.note(datasets(place.home) / built.digest, work, place.origin)
    return built


def listing_of(settings: Settings, where: str) -> str:
    """A digest of what lies at the location now, by name, size and ETag."""
    return listing(where, limits(settings))


def look(settings: Settings, where: str, most: int) -> LocationProfile:
    """What the location holds. Of more than `most` bytes every n-th shard is read, so that a terabyte answers in a minute."""
    bounds, place = limits(settings), survey(where, limits(settings))
    made = recipe(settings)
    shards = cut(place.blobs, LOOK_SHARD, cut=is_cuttable(where, made))
    chosen = shards[:: max(sum(shard.size for shard in shards) // most, 1)]
    items = (item for shard in chosen for item in read(shard, where, shape_of(made), bounds))
    return profile_of(items, len(place.blobs), place.ignored, sum(shard.size for shard in chosen), settings.seed)


def is_finished(work: Path, home: Path) -> bool:
    """Whether the build in `work` has made its dataset, and it is still there."""
    return finished(work, datasets(home)) is not None


def datasets(home: Path) -> Path:
    """Where built datasets lie, a folder a version."""
    return home / "datasets"


def listed(home: Path) -> list[BuiltDataset]:
    """Every dataset there is, newest first."""
    folders = (path for path in datasets(home).glob("*") if _is_version(path))
    return [load(path) for path in sorted(folders, key=lambda path: path.stat().st_mtime, reverse=True)]


def find(home: Path, name: str) -> Path:
    """The one dataset whose digest begins with `name`, or that lies in the folder `name`. Raises UsageError when none or several do."""
    if "/" in name and _is_version_folder(Path(name)):
        return Path(name)
    found = [path for path in sorted(datasets(home).glob(f"{name}*")) if _is_version(path)] if name.isalnum() else []
    if len(found) != 1:
        what = "no dataset" if not found else f"{len(found)} datasets"
        raise UsageError(f"{what} begin with {name!r}; `autoglm data list` shows them")
    return found[0]


def _is_version(path: Path) -> bool:
    """Not a folder that is still being made."""
    return path.name.isalnum() and _is_version_folder(path)


def _is_version_folder(path: Path) -> bool:
    return (path / RECORD).exists()


def record(folder: Path) -> BuiltDataset:
    """The record of a built dataset."""
    return load(folder)


def difference(settings: Settings, before: Path, after: Path) -> tuple[Difference, tuple[DriftReport, ...]]:
    """What came and went between two datasets, and how far the texts moved."""
    found = compare(_texts(before), _texts(after))
    monitor = settings.monitor
    sides = [profile(texts, labels) for texts, labels in (_sample(before), _sample(after))]
    return found, drift(sides[0], sides[1], monitor.psi, monitor.kl, monitor.min_rows)


def _texts(folder: Path) -> Iterator[pl.DataFrame]:
    for part in load(folder).parts:
        yield from frames(folder / part.name)


def _sample(folder: Path) -> tuple[list[str], list[str]]:
    """The first DRIFT_ROWS of every n-th row, so that all of the dataset is looked at."""
    dataset = load(folder)
    step = max(dataset.kept // DRIFT_ROWS, 1)
    chosen = pl.concat([frame.gather_every(step).select("text", "label") for frame in _texts(folder)])
    labels = chosen["label"].drop_nulls().to_list()
    return chosen["text"].to_list(), labels if len(labels) == chosen.height else []


def _step(item: str | Mapping[str, Mapping[str, Any]]) -> StepSpec:
    if isinstance(item, str):
        return StepSpec(name=item)
    if len(item) != 1:
        raise SettingsError(f"flow.steps: {dict(item)} must be one step: a name, or name: {{option: value}}")
    [(name, options)] = item.items()
    return StepSpec(name=name, options=dict(options))


def _dedup(settings: Settings) -> dict[str, Any]:
    given = settings.flow.dedup.model_dump(exclude={"enabled", "memory_mb"})
    return {**given, "seed": settings.seed, "memory": settings.flow.dedup.memory_mb << 20}
