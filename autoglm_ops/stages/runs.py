"""Run workspaces: open one, execute a stage in it, close it. A DAG run never works in the user's checkout (design §4)."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.cluster import JobStatus
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.contracts.record import Completion, Record, digest_of
from autoglm_ops.errors import AutoGLMError, UsageError
from autoglm_ops.settings import PLACEMENT, Settings, load, load_tree, resolve
from autoglm_ops.settings.layers import PREFIX
from autoglm_ops.settings.writer import write_resolved
from autoglm_ops.stages import asked, away, graph, locally, loop, runner, snapshot, trials_away, turns
from autoglm_ops.stages.desk import Told
from autoglm_ops.stages.workplace import Workplace
from autoglm_ops.tuning.rounds import Look
from autoglm_ops.versioning import git

BRANCH = "runs/"
RETUNE = "feedback_retune"


class Closed(Record):
    """`.closed.json` in a workspace: the run is done, and this commit holds it."""

    run: str
    commit: str
    tag: str | None


class Posted(Record):
    """A pod to start, as its manifest, and how long it may take to; None when there is nothing to start."""

    pod: dict[str, Any] | None = None
    context: str | None = None
    start_seconds: float = 600.0


@dataclass(frozen=True)
class Request:
    """Who asks for a run, and for what. `as_of` None is today; both are clipped to the data that exists.

    patched: whether the loop's patches hold for it. Only a comparison, which must stay the same job every night, says no.
    """

    dag: str
    dag_run_id: str
    as_of: date | None = None
    overrides: tuple[str, ...] = ()
    configs: tuple[Path, ...] = field(default_factory=tuple)
    patched: bool = True


def open_run(request: Request, origin: Path, home: Path) -> RunInfo:
    """Find or make the workspace for `request`. The same DAG run id, and the same unfinished work, find the same one.

    The same work has the same release settings, too: a backfill, which may not promote, is one of its own.

    Raises UsageError (no git), SettingsError, BadData (no data by then). Two openers wait for each other.
    """
    git.require_checkout(origin)
    with turns.taken(home / "runs" / ".lock", "another run is being opened; waiting for it"):
        known = home / "dagruns" / f"{digest_of([request.dag, request.dag_run_id])[:24]}.json"
        if known.exists():
            return RunInfo.read(known)
        info = _decide(request, origin, home)
        info.write(known)
        return info


def _decide(request: Request, origin: Path, home: Path) -> RunInfo:
    tree, sources = load_tree(origin / "params.yaml", overrides=request.overrides, configs=request.configs)
    settings = asked.settled(tree, sources, origin)
    world = snapshot.take(settings, origin, home, request.as_of, datetime.now(UTC).date())
    if not request.patched:
        world = replace(world, patches=PatchSet())
    loop.apply_fixed(tree, sources, world.patches, origin)
    if request.dag == RETUNE and sources.get("tune.trials") == "params.yaml":
        tree["tune"]["trials"], sources["tune.trials"] = settings.feedback.trials, "feedback.trials"
    settings = resolve(tree, sources)
    source_tree = git.source_tree(origin)
    content = world.content_key(settings, snapshot.code_digest(origin, source_tree))
    params = {key: value for key, value in settings.model_dump(mode="json").items() if key not in PLACEMENT}
    key = digest_of([request.dag, world.as_of.day, params, source_tree, world.digest()])[:16]

    def answer(decision: str, reason: str, run: str = key) -> RunInfo:
        return RunInfo.model_validate(
            {
                "run": run,
                "workspace": str(home / "runs" / run),
                "dag": request.dag,
                "dag_run_id": request.dag_run_id,
                "decision": decision,
                "reason": reason,
                "as_of": world.as_of.day,
                "content_key": content,
                "opened": time.time(),
            }
        )

    unfinished = next((info for info in listed(home) if _continues(info, request.dag, content, settings)), None)
    if unfinished is not None:
        return answer("run", f"continues the unfinished run {unfinished.run}", unfinished.run)
    if request.dag == "daily_retrain" and world.champion.content_key == content and world.champion.model:
        version = world.champion.model.version
        return answer("champion", f"champion v{version} was made of the same data, parameters and code: nothing to do")
    if closed(home / "runs" / key) is not None:
        return answer("finished", f"run {key} is finished: the same data, parameters, code and champion")
    info = answer("run", "new run")
    carried = _create(info, origin, home, world, tree, sources)
    if carried:
        names = ", ".join(carried[:5]) + (f" and {len(carried) - 5} more" if len(carried) > 5 else "")
        info = info.model_copy(update={"reason": f"new run; carries uncommitted changes of {names}"})
    return info


def _create(
    info: RunInfo, origin: Path, home: Path, world: snapshot.Snapshot, tree: dict[str, object], sources: dict[str, str]
) -> list[str]:
    """Build the workspace beside its place and move it in whole. Returns the files carried over."""
    from autoglm_ops.versioning import dvc

    final = Path(info.workspace)
    staged = final.with_name(f".{final.name}.{os.getpid()}")
    shutil.rmtree(staged, ignore_errors=True)
    staged.parent.mkdir(parents=True, exist_ok=True)
    carried = git.clone(origin, staged)
    world.write(staged)
    write_resolved(staged / "params.yaml", tree, sources)
    Workplace(run=info.run, origin=str(origin), home=str(home)).write(staged / ".workspace.json")
    info.write(staged / "inputs" / "run.json")
    dvc.configure(staged, home)
    git.commit_all(staged, ["params.yaml", "inputs"], f"Open run {info.run}: {info.dag} as of {info.as_of}")
    os.replace(staged, final)
    return carried


def execute(run: str, name: str, home: Path, by: Callable[[Path, str], Completion] | None = None) -> Completion:
    """Run one stage of a workspace: DVC's cache first, else the launcher (or `by`), then the one committer. Whoever comes second waits.

    Raises AutoGLMError with the stage's own exit code when it failed. The completion record, not the exit, is the evidence.
    """
    by = by or launch
    root = workspace(run, home)
    spec = graph.find(name)
    with turns.alone(root):
        runner.check_inputs(spec, root)
        if not spec.dvc:
            return by(root, name)
        from autoglm_ops.versioning.dvc import Pipeline

        with Pipeline(root) as pipeline:
            if pipeline.restore(name):
                return runner.restored(name, root)
            completion = by(root, name)
            pipeline.commit(name)
        return completion


class StageFailedError(AutoGLMError):
    """A stage's child ended with an exit code of its own, which is passed on unaltered."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def send(run: str, name: str, home: Path) -> Posted:
    """Make a stage ready to run in a pod that somebody else starts (Airflow's KubernetesPodOperator). `take` comes after.

    There is no pod when the stage's output is in DVC's cache, when its work is done already, and when it runs here, on Slurm or in
    several pods: `execute` then does it all. Raises SettingsError, Refused (a quota, by its name) or TryAgain.
    """
    if away.nodes_of(name, load(workspace(run, home) / "params.yaml")) > 1:
        return Posted()  # before an attempt is taken, which is `execute`'s to take
    sent = _sent(run, name, home)
    if sent is None:
        return Posted()
    from autoglm_ops.cluster.kubernetes import KubernetesLauncher

    assert isinstance(sent.launcher, KubernetesLauncher)
    with away.recorded(workspace(run, home), name):
        [pod] = sent.launcher.prepare(sent.job)
    cluster = sent.settings.cluster
    return Posted(pod=pod, context=cluster.kubernetes.context, start_seconds=cluster.start_seconds)


def render(run: str, name: str, home: Path, form: str) -> list[dict[str, Any]]:
    """As `send`, for who starts it with `kubectl apply`: its manifests in a form of `cluster.indexed`; none when there is nothing to start.

    Raises as `send` does.
    """
    from autoglm_ops.cluster.indexed import manifests

    sent = _sent(run, name, home)
    return [] if sent is None else manifests(form, sent.job, sent.settings.cluster.kubernetes)


def _sent(run: str, name: str, home: Path) -> away.Sent | None:
    """The stage's work in the store and its attempt taken; None when no pod of Kubernetes is to be started for it."""
    root = workspace(run, home)
    settings = load(root / "params.yaml")
    runner.check_inputs(graph.find(name), root)
    if settings.cluster.backend != "kubernetes" or not away.is_away(name, settings) or _cached(root, name):
        return None
    if _only_a_report(root, name):
        return None
    from autoglm_ops.cluster import exchange

    with _without_overrides(), away.recorded(root, name):
        sent = away.send(root, name, settings)
    return None if exchange.finished(sent.store, sent.job.key or "") is not None else sent


def take(root: Path, name: str, said: JobStatus) -> Completion:
    """Take over what the pod of `send` left. Raises StageFailedError with its exit code; with that of `said` when it left nothing."""
    settings, started = load(root / "params.yaml"), time.time()
    with _without_overrides(), away.recorded(root, name):
        sent = away.latest(root, name, settings)
        status = away.take(root, sent, said, started)
    return _believed(root, name, status)


def ask(run: str, home: Path, *, alone: bool = False) -> tuple[Look, ...]:
    """The trials that the run's study wants trained now, all at once; none when it is over, or its report is in DVC's cache.

    alone: who asks could only train one after the other; none then on Slurm either, where the stage itself sends a round as one array.
    """
    from autoglm_ops.stages import trials

    root = workspace(run, home)
    settings = load(root / "params.yaml")
    runner.check_inputs(graph.find(trials.STAGE), root)
    if alone and settings.cluster.backend == "slurm" and trials_away.leave(settings):
        return ()
    if settings.tune.parallel == 1 or _cached(root, trials.STAGE):
        return ()
    with _without_overrides():
        return trials.ask(root)


def take_look(run: str, look: Look, home: Path) -> Told:
    """Train one of them where `cluster` says. Raises TryAgain when whoever trained it died."""
    from autoglm_ops.stages import trials

    root = workspace(run, home)
    with _without_overrides():
        return trials.launch(root, look)


def _cached(root: Path, name: str) -> bool:
    from autoglm_ops.versioning.dvc import Pipeline

    with turns.alone(root), Pipeline(root) as pipeline:
        return pipeline.restore(name)


def launch(root: Path, name: str) -> Completion:
    """Run a stage of the workspace in a process of its own, or where `cluster` says. Raises StageFailedError with its exit code."""
    settings = load(root / "params.yaml")
    with _without_overrides():
        rounds = name == "tune" and settings.tune.parallel > 1  # the study stays: it is its trials that leave
        gone = away.is_away(name, settings) and not rounds
        status = away.launch(root, name, settings) if gone else locally.run(root, name, ("stage", name), settings)
    return _believed(root, name, status)


def _only_a_report(root: Path, name: str) -> bool:
    """Whether `name` is a study whose trials are all trained: no job of its own is worth that."""
    from autoglm_ops.stages import trials

    return name == trials.STAGE and trials.over(root)


def _believed(root: Path, name: str, status: JobStatus) -> Completion:
    if status.state != "succeeded":
        path = runner.completion_path(root, name)
        said = "; ".join(Completion.read(path).reasons) if path.exists() else status.reason
        raise StageFailedError(f"stage {name}: {said or status.state}", status.exit or 1)
    return runner.require(name, root)


@contextmanager
def _without_overrides() -> Iterator[None]:
    """Overrides were resolved into params.yaml when the run was opened; a child sees only those of placement settings."""
    place = tuple(f"{PREFIX}{section.upper()}__" for section in PLACEMENT)
    gone = {key: value for key, value in os.environ.items() if key.startswith(PREFIX) and not key.startswith(place)}
    for key in gone:
        del os.environ[key]
    try:
        yield
    finally:
        os.environ.update(gone)


def close_run(run: str, home: Path) -> Closed:
    """Commit the run's records, push its branch to the origin and its data to the DVC remote, tag a promoted model."""
    root = workspace(run, home)
    with turns.alone(root):
        return closed(root) or _close(run, root)


def _close(run: str, root: Path) -> Closed:
    from autoglm_ops.versioning.dvc import Pipeline

    with Pipeline(root) as pipeline:
        pipeline.push()
    commit = git.commit_all(root, ["params.yaml", "inputs", "dvc.lock", "completed"], f"Close run {run}")
    git.push_branch(root, f"{BRANCH}{run}")
    result = Closed(run=run, commit=commit, tag=_tag(root, commit))
    result.write(root / ".closed.json")
    return result


def _tag(root: Path, commit: str) -> str | None:
    path = runner.completion_path(root, "promote")
    facts = Completion.read(path).facts if path.exists() else {}
    if not facts.get("promoted"):
        return None
    from autoglm_ops.release import tags

    return tags.tag_model(root, version=int(facts["version"]), commit=commit, metrics=facts.get("metrics", {}))


def workspace(run: str, home: Path) -> Path:
    """The folder of run `run`. Raises UsageError naming the nearest known ones."""
    root = home / "runs" / run
    if not run or "/" in run or not (root / ".workspace.json").exists():
        known = [info.run for info in listed(home)][:3]
        raise UsageError(f"no run {run!r} under {home / 'runs'}; latest: {', '.join(known) or 'none'}")
    return root


def listed(home: Path) -> Iterator[RunInfo]:
    """Every run's info, latest first."""
    paths = (path for path in (home / "runs").glob("*/inputs/run.json") if not path.parts[-3].startswith("."))
    infos = [RunInfo.read(path) for path in paths]
    yield from sorted(infos, key=lambda info: info.opened, reverse=True)


def closed(root: Path) -> Closed | None:
    path = root / ".closed.json"
    return Closed.read(path) if path.exists() else None


def prune(home: Path, keep: int, *, dry: bool = False) -> list[str]:
    """Remove closed workspaces but the latest `keep`. Their commits and DVC data stay. Returns the removed run keys."""
    finished = [info.run for info in listed(home) if closed(Path(info.workspace)) is not None]
    doomed = finished[keep:]
    for run in doomed if not dry else ():
        shutil.rmtree(home / "runs" / run)
    return doomed


def _continues(info: RunInfo, dag: str, content: str, settings: Settings) -> bool:
    """Only a run of the same release settings: what may be promoted, and who approves it, is read from the workspace from then on."""
    root = Path(info.workspace)
    same = info.dag == dag and info.content_key == content and (root / ".workspace.json").exists() and closed(root) is None
    return same and load(root / "params.yaml", environ={}).release == settings.release
