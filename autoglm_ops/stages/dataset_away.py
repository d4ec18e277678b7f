"""A shard of a dataset's build somewhere else: what its task reads goes into the store by digest, and its result comes back the same way.

The tasks that look at one shard's documents leave: `read`, `weigh` and `write`. `match`, `verify` and `settle` compare all shards'
signatures with each other; to send those would be to send everything to everybody, so they stay where the signatures are.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import yaml

from autoglm_ops.cluster.dispatch import run_work
from autoglm_ops.contracts.cluster import Store, Work
from autoglm_ops.contracts.flow import PlannedPart
from autoglm_ops.data.build.plan import PROTECTED, read_plan
from autoglm_ops.errors import Refused, TryAgain, UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.stages import away, launchers
from autoglm_ops.stages.workplace import Workplace
from autoglm_ops.store import open_store

NAME = "dataset"
"""What `cluster.stages` calls the shards of a build."""
RAW = "raw"
TAKES: dict[str, tuple[str, ...]] = {
    "weigh": ("gone/{}.parquet",),
    "write": ("gone/{}.parquet", "weigh"),
}
"""What a task reads of the build's folder, beside the plan and its shard as `read` left it."""
PACKAGE = Path(__file__).parents[1]
GIVES: dict[str, tuple[str, ...]] = {"read": ("read/{}", "signed/{}"), "weigh": ("weigh/{}",), "write": ("write/{}",)}


def leaves(phase: str, work: Path, settings: Settings) -> bool:
    """Whether a task of `phase` is a job: `cluster` sends shards away, and there is something to do."""
    if phase not in GIVES or not away.is_away(NAME, settings):
        return False
    recipe = read_plan(work).recipe
    return phase != "weigh" or bool(recipe.source_cap or recipe.mix)


def task(home: Path, work: Path, phase: str, number: int, settings: Settings) -> None:
    """Task `number` of `phase`, where `cluster` says. One whose result is here does nothing.

    Raises UsageError for raw text that a job cannot see, Refused when the task itself refuses, TryAgain when its job was lost.
    """
    gives = [path.format(f"{number:06d}") for path in GIVES[phase] if path != "signed/{}" or read_plan(work).recipe.dedup]
    if all((work / path).exists() for path in gives):
        return
    settings = settings.model_copy(update={"cluster": settings.cluster.of_team(settings.cluster.team)})
    uri = settings.store.uri or str(home / "store")
    store = open_store(uri, home)
    launcher, python = launchers.open_launcher(settings)
    job = away.job_of(NAME, settings, uri)
    job = job.model_copy(update={"resources": job.resources.model_copy(update={"gpus": 0, "gpu": None})})  # no step knows one
    below = f"home/scratch/{work.name}"
    sent = _work(work, phase, number, settings, store)
    status = run_work(
        sent.model_copy(update={"outputs": tuple(f"{below}/{path}" for path in gives)}), job, launcher, store, python
    )
    if status.state != "succeeded":
        said = f"{phase} {number} of {work.name}: {status.reason or status.state}; its log says why"
        raise (Refused if status.state == "failed" and status.exit in (1, 2, 3) else TryAgain)(said)
    for path in gives:
        digest = status.outputs.get(f"{below}/{path}")
        if digest is None:
            raise TryAgain(f"{phase} {number} of {work.name} came back without {path}; it is tried again")
        (work / path).parent.mkdir(exist_ok=True)
        store.get(digest, work / path)


def _work(work: Path, phase: str, number: int, settings: Settings, store: Store) -> Work:
    """The same shard of the same build is the same work, and so has the same key, whatever other settings say."""
    made, shard = read_plan(work), f"{number:06d}"
    inputs = {} if phase == "read" else {f"home/scratch/{work.name}/read/{shard}": store.put(work / "read" / shard)}
    with tempfile.TemporaryDirectory(prefix="autoglm-shard-", dir=work.parent) as place:
        if phase == "read" and (folder := _folder(made.location)) is not None:
            _raw(folder, made.shards[number], Path(place) / RAW)
            inputs[RAW] = store.put(Path(place) / RAW)
            made = made.model_copy(update={"location": f"{RAW}/{folder.name}" if folder.is_file() else RAW})
        bundle = Path(place) / "bundle"
        there = bundle / "home" / "scratch" / work.name
        made.write(there / "plan.json")
        for path in [PROTECTED] if phase == "read" else [path.format(shard) for path in TAKES[phase]]:
            _copy(work / path, there / path)
        _code(settings, bundle)
        inputs["."] = store.put(bundle)
    return Work(
        name=NAME,
        command=("python", "-m", "autoglm_ops", "data", "task", "--here", work.name, phase, str(number)),
        inputs=inputs,
        environment={**settings.cluster.environment, "AUTOGLM_CHECKOUT": "."},
        secrets=settings.cluster.secrets,
        deadline_seconds=settings.cluster.deadline_seconds,
    )


def _folder(location: str) -> Path | None:
    """The file or folder of this machine; None for what a job can ask for itself."""
    return Path(location.removeprefix("file://")) if location.startswith("file://") or "://" not in location else None


def _raw(root: Path, parts: tuple[PlannedPart, ...], target: Path) -> None:
    """The shard's files, by the names that the readers know. Raises UsageError for a range of one: each such job would be sent all of it."""
    for part in parts:
        if part.start or part.stop < part.size:
            raise UsageError(
                f"{part.name} at {root} is read in ranges, and a job on a cluster would be sent all of it for each; put the raw text "
                "into a bucket (flow.location: s3://…), cut it into files of flow.shard_mb, or leave dataset out of cluster.stages"
            )
        _copy(root if root.is_file() else root / part.name, target / part.name)


def _copy(source: Path, target: Path) -> None:
    """A file or a folder, where there is one; a second name for a file where the disk can do that."""
    for path in [source, *source.rglob("*")]:
        if path.is_file():
            place = target / path.relative_to(source)
            place.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(path.resolve(), place)
            except OSError:
                shutil.copyfile(path, place)


def _code(settings: Settings, bundle: Path) -> None:
    """What runs there: this package, and the settings that a reader goes by."""
    shutil.copytree(PACKAGE, bundle / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    flow = settings.flow.model_dump(mode="json", include={"http_hosts", "document"})
    (bundle / "params.yaml").write_text(yaml.safe_dump({"flow": flow}), encoding="utf-8")
    Workplace(run=NAME, origin="origin", home="home").write(bundle / ".workspace.json")
