"""A stage somewhere else: what its Spec says it reads goes into the store by digest, its output and record come back the same way.

The bundle holds the workspace's code, params.yaml and the stage's own inputs/*.json; each earlier output it reads is an artefact of
its own, so that two stages ship the same tokens once. What comes back is believed when the record's inputs are the ones that were
sent and its outputs are the bytes that arrived.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from autoglm_ops.cluster import exchange
from autoglm_ops.cluster.dispatch import believed, place
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Launcher, Queue, Resources, Store, Work
from autoglm_ops.contracts.record import Completion
from autoglm_ops.errors import AutoGLMError, SettingsError, Tampered
from autoglm_ops.settings import Settings
from autoglm_ops.stages import graph, launchers, runner, workplace
from autoglm_ops.stages.base import Spec
from autoglm_ops.stages.workplace import Workplace
from autoglm_ops.store import open_store

KEEPS = ("home/scratch/*/checkpoints/step-*",)
"""Where `training.checkpoint` puts what a next attempt continues from, in the work folder of a job."""


def is_away(name: str, settings: Settings) -> bool:
    """Whether stage `name` leaves this workspace: to a cluster, or to a rehearsal of one."""
    cluster = settings.cluster
    return name in cluster.stages and (cluster.backend != "local" or cluster.rehearse)


@dataclass(frozen=True)
class Sent:
    """A stage's work with its place and attempt, not yet started."""

    spec: Spec
    settings: Settings
    store: Store
    launcher: Launcher
    job: JobSpec


def send(root: Path, name: str, settings: Settings) -> Sent:
    """Put what stage `name` reads into the store, and take the attempt that is on its way or the next one.

    Raises SettingsError, Refused or TryAgain.
    """
    sent, work, python = _described(root, name, settings)
    return replace(sent, job=place(work, sent.job, sent.launcher, sent.store, python))


def latest(root: Path, name: str, settings: Settings) -> Sent:
    """The attempt that `send` took last."""
    sent, work, _ = _described(root, name, settings)
    key = exchange.describe(sent.store, work)
    return replace(sent, job=sent.job.model_copy(update={"key": key, "attempt": exchange.newest(sent.store, key)}))


def _described(root: Path, name: str, settings: Settings) -> tuple[Sent, Work, str]:
    settings = settings.model_copy(update={"cluster": settings.cluster.of_team(settings.cluster.team)})
    spec = graph.find(name)
    store, uri = store_of(root, settings)
    launcher, python = launchers.open_launcher(settings)
    return Sent(spec, settings, store, launcher, job_of(name, settings, uri)), work_of(root, name, settings, store), python


def launch(root: Path, name: str, settings: Settings) -> JobStatus:
    """Run stage `name` where `cluster` says, and take over what it left: out/NAME, completed/NAME.json, refused/NAME.

    Raises SettingsError, Refused (quota, image, secret), Tampered (what came back is not what the record says) or TryAgain;
    `completed/NAME.json` says so in any case.
    """
    started = time.time()
    with recorded(root, name):
        sent = send(root, name, settings)
        done = exchange.finished(sent.store, sent.job.key or "")
        said = JobStatus(state="succeeded", exit=0, seconds=0) if done else sent.launcher.run(sent.job)
        return take(root, sent, said, started)


@contextmanager
def recorded(root: Path, name: str) -> Iterator[None]:
    """What refuses stage `name` in this block (a quota, an image, a store that is away) stands in its record like any other end."""
    attempt, started = runner.attempts(root, name) + 1, time.time()
    try:
        yield
    except AutoGLMError as error:
        unfinished(root, name, error.exit_code, (str(error),), started=started, attempt=attempt)
        raise


def take(root: Path, sent: Sent, said: JobStatus, started: float) -> JobStatus:
    """Take over what the attempt left, or write down why there is nothing. `said` is how the launcher saw it end.

    Raises Tampered: what came back is not what the record says.
    """
    attempt = runner.attempts(root, sent.spec.name) + 1
    runner.completion_path(root, sent.spec.name).unlink(missing_ok=True)
    status = believed(sent.store, sent.job, said)
    with tempfile.TemporaryDirectory(prefix=f".{sent.spec.name}.", dir=root / "out") as folder:
        _take(root, sent.spec, status, sent.store, Path(folder))
    _record(root, sent.spec, status, attempt, started)
    return status


def sweep(root: Path, settings: Settings, *, dry: bool = False) -> list[str]:
    """Remove what is left of jobs on the cluster that are done, or that a newer attempt replaced: a launcher that was killed for good leaves that.

    Returns the names. Raises UsageError without a cluster, TryAgain when it or the store is away.
    """
    settings = settings.model_copy(update={"cluster": settings.cluster.of_team(settings.cluster.team)})
    launcher, _ = launchers.open_launcher(settings)
    if not isinstance(launcher, Queue):
        return []
    store, _ = store_of(root, settings)
    return launcher.sweep(
        lambda key, attempt: exchange.finished(store, key) is None and exchange.newest(store, key) <= attempt, dry=dry
    )


def store_of(root: Path, settings: Settings) -> tuple[Store, str]:
    """The store that jobs of this workspace go through, and where a job finds it."""
    home = workplace.home(root)
    uri = settings.store.uri or str(home / "store")
    return open_store(uri, home), uri


def work_of(root: Path, name: str, settings: Settings, store: Store) -> Work:
    """What the job of stage `name` is told, its inputs in the store. The same workspace gives the same, and so the same key."""
    spec, cluster = graph.find(name), settings.cluster
    inputs = {f"out/{name}": store.put(root / "out" / name) for name in spec.after if graph.find(name).dvc}
    inputs |= _named_folders(root, spec, settings, store)
    with tempfile.TemporaryDirectory(prefix="autoglm-bundle-") as folder:
        inputs["."] = store.put(_bundle(root, spec, Path(folder) / "bundle"))
    return Work(
        name=spec.name,
        command=("python", "-m", "autoglm_ops", "stage", spec.name),
        inputs=inputs,
        outputs=(f"out/{spec.name}", "completed", f"refused/{spec.name}"),
        keeps=KEEPS,
        environment={"OMP_NUM_THREADS": "1", **cluster.environment, **_store_setting(settings)},
        secrets=cluster.secrets,
        deadline_seconds=cluster.deadline_seconds,
        nodes=_resources(name, settings).nodes,
    )


def _bundle(root: Path, spec: Spec, folder: Path) -> Path:
    shutil.copytree(root / "autoglm_ops", folder / "autoglm_ops", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    if "expectations" in spec.code:
        shutil.copytree(root / "expectations", folder / "expectations")
    shutil.copyfile(root / "params.yaml", folder / "params.yaml")
    for name in spec.inputs:
        target = folder / "inputs" / f"{name}.json"
        target.parent.mkdir(exist_ok=True)
        shutil.copyfile(root / "inputs" / f"{name}.json", target)
    Workplace(run=workplace.run_key(root), origin="origin", home="home").write(folder / ".workspace.json")
    return folder


def _named_folders(root: Path, spec: Spec, settings: Settings, store: Store) -> dict[str, str]:
    """The folders outside the workspace that settings name (stages/folders.py): they lie beside the work as they lie beside the checkout."""
    if "folders" not in spec.inputs:
        return {}
    found = {}
    for key, named in (("model.name", settings.model.name), ("tokenize.tokenizer", settings.tokenize.tokenizer)):
        folder = workplace.origin(root) / named if named else None
        if named and folder is not None and folder.is_dir():
            if Path(named).is_absolute() or ".." in Path(named).parts:
                raise SettingsError(
                    f"{key} = {named!r} is outside the checkout, and a job on a cluster cannot see it; put the folder into the "
                    "checkout and name it relative to it, or leave the stage out of cluster.stages"
                )
            found[f"origin/{named}"] = store.put(folder)
    return found


def _store_setting(settings: Settings) -> dict[str, str]:
    return {} if settings.store.uri is None else {"AUTOGLM__STORE__URI": settings.store.uri}


def job_of(name: str, settings: Settings, uri: str) -> JobSpec:
    """What a launcher is asked for, for a job of stage `name`; its command and key come with its work."""
    cluster = settings.cluster
    return JobSpec(
        name=name,
        command=(),
        deadline_seconds=cluster.deadline_seconds + cluster.start_seconds,
        image=cluster.image,
        resources=_resources(name, settings),
        environment=cluster.environment,
        secrets=cluster.secrets,
        team=cluster.team,
        priority=cluster.priority,
        store=uri,
    )


def nodes_of(name: str, settings: Settings) -> int:
    """How many pods a job of stage `name` is, for the team whose it is."""
    cluster = settings.cluster.of_team(settings.cluster.team)
    return _resources(name, settings.model_copy(update={"cluster": cluster})).nodes


def _resources(name: str, settings: Settings) -> Resources:
    """Only `train` has ranks to spread over nodes."""
    asked = settings.cluster.resources
    return asked if name == "train" else asked.model_copy(update={"nodes": 1})


def _take(root: Path, spec: Spec, status: JobStatus, store: Store, staged: Path) -> None:
    """Lay down what came back, each in its place. The output replaces the old one only when the record speaks for it."""
    for at, (path, digest) in enumerate(sorted(status.outputs.items())):
        got = store.get(digest, staged / str(at))
        if path == "completed":
            _completion(got, spec, root)
        elif path in (f"out/{spec.name}", f"refused/{spec.name}"):
            final = root / path
            shutil.rmtree(final, ignore_errors=True)
            final.parent.mkdir(parents=True, exist_ok=True)
            got.rename(final)


def _completion(folder: Path, spec: Spec, root: Path) -> None:
    path = folder / f"{spec.name}.json"
    if not path.exists():
        raise Tampered(f"the job of stage {spec.name} left no completed/{spec.name}.json; run it again")
    completion = Completion.read(path)
    sent = runner.check_inputs(spec, root)
    if completion.exit == 0 and completion.inputs != sent:
        differ = sorted(
            name for name in sent.keys() | completion.inputs.keys() if sent.get(name) != completion.inputs.get(name)
        )
        raise Tampered(f"stage {spec.name} says it read other bytes than it was sent: {', '.join(differ)}; run it again")
    completion.write(runner.completion_path(root, spec.name))


def _record(root: Path, spec: Spec, status: JobStatus, attempt: int, started: float) -> None:
    """The completion of this workspace: the stage's own, or, where it had no chance to write one, what the cluster said."""
    path = runner.completion_path(root, spec.name)
    if path.exists():
        found = Completion.read(path)
        if status.state == "succeeded" and runner.check_outputs(spec.name, root) != found.outputs:
            raise Tampered(f"out/{spec.name} differs from the record of its job; run the stage again")
        measured = {**found.measured, "job_seconds": round(time.time() - started, 3)}
        found.model_copy(update={"attempt": attempt, "measured": measured}).write(path)
        return
    unfinished(root, spec.name, status.exit or 1, (status.reason or status.state,), started=started, attempt=attempt)


def unfinished(
    root: Path,
    name: str,
    code: int,
    reasons: tuple[str, ...],
    *,
    started: float,
    attempt: int,
    inputs: Mapping[str, str] | None = None,
) -> None:
    """The record of stage `name` where it had no chance to write one."""
    Completion(
        stage=name,
        run=workplace.run_key(root),
        attempt=attempt,
        started=started,
        seconds=round(time.time() - started, 3),
        cached=False,
        exit=code,
        reasons=reasons,
        inputs=dict(inputs or {}),
    ).write(runner.completion_path(root, name))
