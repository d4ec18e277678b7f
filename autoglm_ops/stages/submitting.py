"""A command of somebody's, run where `cluster` says: `autoglm submit`.

Each job has a folder, `$AUTOGLM_HOME/jobs/<id>`: job.json (what was asked for), log, status.json (how it ended), output/ (what came
back). A keeper, a process of its own, runs or follows the job and writes them; when it is killed, a job on a cluster goes on, and the
store and the cluster are asked instead.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_ops.cluster import exchange, services
from autoglm_ops.cluster.dispatch import believed, check_waits, place
from autoglm_ops.cluster.services import Service
from autoglm_ops.contracts.cluster import LOOKS_SECRET, JobSpec, JobStatus, Launcher, Queue, Store, Work
from autoglm_ops.contracts.record import Record
from autoglm_ops.errors import AutoGLMError, Refused, TryAgain, UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.stages import launchers
from autoglm_ops.store import open_store
from autoglm_ops.store.code import lay_code

_ID = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_CANCEL_SECONDS = 60.0


@dataclass(frozen=True)
class Request:
    """code: a folder, an archive, s3://…; None starts in an empty folder. outputs: folders, relative to the code, that are brought back.

    after: ids of jobs that must have succeeded before it starts.
    """

    command: tuple[str, ...]
    name: str = "job"
    code: str | None = None
    outputs: tuple[str, ...] = ("out",)
    environment: tuple[str, ...] = ()
    secrets: tuple[str, ...] = ()
    logs: Path | None = None
    after: tuple[str, ...] = ()


class Submitted(Record):
    """`job.json`. `settings`: the sections cluster and store as they were, so that the job is found where it was sent."""

    id: str
    created: float
    command: tuple[str, ...]
    log: str
    job: JobSpec
    settings: dict[str, Any]


class Standing(Record):
    """How a job is doing. `state`: pending, running, or how it ended. `output`: the folder that came back."""

    id: str
    state: str
    exit: int | None = None
    reason: str = ""
    seconds: float | None = None
    backend: str
    log: str
    output: str | None = None

    @property
    def over(self) -> bool:
        return self.state not in ("pending", "running")


def submit(request: Request, settings: Settings, home: Path) -> Submitted:
    """Start the job; it goes on when this process ends.

    Raises UsageError, Refused (archive, quota, no such GPUs, a job to wait for that has not succeeded) or TryAgain.
    """
    settings = settings.model_copy(update={"cluster": settings.cluster.of_team(settings.cluster.team)})
    ident = _new_id(request.name)
    folder = home / "jobs" / ident
    store = open_store(settings.store.uri, home)
    launcher, python = launchers.open_launcher(settings)
    if request.after:
        check_waits(request.name, launcher)
    if request.logs is not None:
        _check_logs(request.logs)
    after = _awaited(request.after, settings.cluster.backend, home)
    work = _work(request, ident, settings, store)
    job = _job(request, settings, home).model_copy(update={"after": after})
    placed = place(work, job, launcher, store, python)
    log = (request.logs or folder) / (f"{ident}.log" if request.logs else "log")
    kept = settings.model_dump(mode="json", include={"cluster", "store"})
    record = Submitted(
        id=ident, created=time.time(), command=request.command, log=str(log.absolute()), job=placed, settings=kept
    )
    record.write(folder / "job.json")
    try:
        if isinstance(launcher, Queue):
            launcher.submit(placed)
        _start_keeper(record, folder, home)
    except AutoGLMError:
        shutil.rmtree(folder)
        raise
    return record


def keep(ident: str, home: Path) -> JobStatus:
    """The keeper's work: run the job, or follow it on its cluster; then write how it ended, and lay down what came back.

    What an ended job leaves on its cluster (a pod) is removed: its log and its output are here. Raises, and writes nothing, when the store
    or the cluster is away (TryAgain), or refuses an answer about a job that may go on: whoever asks for it next gives it a new keeper.
    """
    record, folder = find(ident, home), home / "jobs" / ident
    settings = Settings.model_validate(record.settings)
    store = open_store(settings.store.uri, home)
    launcher, _ = launchers.open_launcher(settings)
    try:
        status = launcher.follow(record.job) if isinstance(launcher, Queue) else launcher.run(record.job)
        status = believed(store, record.job, status)
        _bring(status, store, folder)
        if isinstance(launcher, Queue) and status.state != "cancelled":
            launcher.cancel(record.job)
    except TryAgain:
        raise
    except AutoGLMError as error:
        if _may_go_on(launcher, record.job):
            raise
        status = JobStatus(state="failed", exit=error.exit_code, seconds=time.time() - record.created, reason=str(error))
    status.write(folder / "status.json")
    return status


def standing(ident: str, home: Path) -> Standing:
    """How job `ident` is doing: its own record, else the store's, else what the cluster says."""
    record, folder = find(ident, home), home / "jobs" / ident
    settings = Settings.model_validate(record.settings)
    ended, state = _ended(record, folder, settings, home), ""
    if ended is None and (state := _going(record, folder, settings, home)) == "lost":
        # A keeper that lived at the first look may have written the end and gone while the cluster was asked.
        ended = _ended(record, folder, settings, home)
    if ended is None:
        return _standing(record, state=state)
    output = folder / "output"
    said = ended.model_dump(include={"state", "exit", "reason", "seconds"})
    return _standing(record, output=str(output) if output.is_dir() else None, **said)


def glance(record: Submitted, home: Path) -> Standing:
    """As `standing`, in a list of jobs: of one whose store or cluster does not answer it is `unknown`, and why."""
    try:
        return standing(record.id, home)
    except AutoGLMError as error:
        return _standing(record, state="unknown", reason=str(error))


def cancel(ident: str, home: Path) -> Standing:
    """End the job and everything it started, here or on its cluster. One that is over stays as it ended."""
    now = standing(ident, home)
    if now.over:
        return now
    record, folder = find(ident, home), home / "jobs" / ident
    launcher, _ = launchers.open_launcher(Settings.model_validate(record.settings))
    if isinstance(launcher, Queue):
        launcher.cancel(record.job)
    services.stop([Service.read(folder / "keeper.json")], grace=_CANCEL_SECONDS)
    now = standing(ident, home)
    if now.over and now.state != "lost":
        return now
    reason = "cancelled: autoglm submit cancel asked for its end"
    JobStatus(state="cancelled", exit=143, seconds=time.time() - record.created, reason=reason).write(folder / "status.json")
    return standing(ident, home)


def find(ident: str, home: Path) -> Submitted:
    """The record of job `ident`. Raises UsageError for what is no id, and naming the latest ones when there is none of it (threats F18)."""
    if not _ID.fullmatch(ident):
        raise UsageError(f"{ident[:80]!r} is not a job's id; `autoglm submit list` shows them")
    path = home / "jobs" / ident / "job.json"
    if not path.exists():
        known = ", ".join(record.id for record in list(listed(home))[:3])
        raise UsageError(f"no job {ident!r} under {home / 'jobs'}; latest: {known or 'none'}")
    return Submitted.read(path)


def listed(home: Path) -> Iterator[Submitted]:
    """Every job, latest first."""
    found = [Submitted.read(path) for path in (home / "jobs").glob("*/job.json")]
    yield from sorted(found, key=lambda record: record.created, reverse=True)


def _new_id(name: str) -> str:
    ident = f"{name}-{secrets.token_hex(3)}"
    if not _ID.fullmatch(ident):
        raise UsageError(
            f"--name {name[:80]!r}: lower-case letters, digits, '.', '_' and '-', at most 56, the first a letter or digit"
        )
    return ident


def _work(request: Request, ident: str, settings: Settings, store: Store) -> Work:
    """The id is part of it: who submits a command twice wants it run twice."""
    inputs = {}
    if request.code is not None:
        with tempfile.TemporaryDirectory(prefix="autoglm-submit-") as folder:
            inputs["."] = store.put(lay_code(request.code, Path(folder) / "code"))
    cluster = settings.cluster
    return Work(
        name=request.name,
        command=request.command,
        inputs=inputs,
        outputs=tuple(str(exchange.inside(path)) for path in request.outputs),
        environment={**cluster.environment, **_variables(request.environment), "AUTOGLM_JOB_ID": ident},
        secrets=tuple(dict.fromkeys((*cluster.secrets, *request.secrets))),
        deadline_seconds=cluster.deadline_seconds,
        nodes=cluster.resources.nodes,
    )


def _job(request: Request, settings: Settings, home: Path) -> JobSpec:
    cluster = settings.cluster
    return JobSpec(
        name=request.name,
        command=(),
        workdir=str(home),
        deadline_seconds=cluster.deadline_seconds + cluster.start_seconds,
        image=cluster.image,
        resources=cluster.resources,
        environment=cluster.environment,
        secrets=cluster.secrets,
        team=cluster.team,
        priority=cluster.priority,
        store=settings.store.uri or str(home / "store"),
    )


def _awaited(idents: tuple[str, ...], backend: str, home: Path) -> tuple[str, ...]:
    """The handles of those that are not over. Raises UsageError for one elsewhere, Refused for one that ended otherwise than well."""
    found = []
    for ident in idents:
        now = standing(ident, home)
        if not now.over and now.backend != backend:
            raise UsageError(
                f"--after {ident}: it runs on {now.backend}, and a job on {backend} cannot wait for it; wait until it is over"
            )
        if now.over and now.state != "succeeded":
            why = f"{now.state}: {now.reason}" if now.reason else now.state
            raise Refused(
                f"dependency: job {ident} has not succeeded ({why}), so what waits for it would never start; submit it again first"
            )
        if not now.over:
            found.append(find(ident, home).job.handle)
    return tuple(dict.fromkeys(found))


def _check_logs(folder: Path) -> None:
    """Before anything is sent. Raises UsageError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--logs {folder}: {error.strerror}; name a folder that can be written to") from error
    if not os.access(folder, os.W_OK):
        raise UsageError(f"--logs {folder} cannot be written to; name another folder")


def _variables(pairs: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
            raise UsageError(f"--env {pair[:40]!r} is not NAME=VALUE")
        if LOOKS_SECRET.search(name):
            raise UsageError(
                f"--env {name}=… looks like a secret, and would be kept in records: set it here, and give --secret {name}"
            )
        found[name] = value
    return found


def _start_keeper(record: Submitted, folder: Path, home: Path) -> None:
    environment = {**os.environ, "AUTOGLM_HOME": str(home), "AUTOGLM_LOG_PLAIN": "1"}
    command = [sys.executable, "-m", "autoglm_ops", "submit", "keep", record.id]
    service = services.start(f"job {record.id}", command, environment=environment, cwd=Path.cwd(), log=Path(record.log), url="")
    service.write(folder / "keeper.json")


def _bring(status: JobStatus, store: Store, folder: Path) -> None:
    for path, digest in sorted(status.outputs.items()):
        target = folder / "output" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        store.get(digest, target)


def _ended(record: Submitted, folder: Path, settings: Settings, home: Path) -> JobStatus | None:
    if (folder / "status.json").exists():
        return JobStatus.read(folder / "status.json")
    if _is_kept(folder):
        return None
    store = open_store(settings.store.uri, home)
    if exchange.ended(store, record.job.key or "", record.job.attempt) is None:
        return None
    status = believed(store, record.job, JobStatus(state="lost", exit=TryAgain.exit_code, seconds=0))
    _bring(status, store, folder)
    status.write(folder / "status.json")
    return status


def _going(record: Submitted, folder: Path, settings: Settings, home: Path) -> str:
    """Whoever asks for a job on a cluster that has lost its keeper gives it a new one: its log and its output are to come here."""
    launcher, _ = launchers.open_launcher(settings)
    seen = launcher.look(record.job)
    if seen in ("pending", "running"):
        if not _is_kept(folder) and not (folder / "status.json").exists():  # else it wrote the end while the cluster was asked
            Path(record.log).unlink(missing_ok=True)
            _start_keeper(record, folder, home)
        return seen
    return "running" if _is_kept(folder) else "lost"


def _may_go_on(launcher: Launcher, job: JobSpec) -> bool:
    """Whether the job is there, or nobody can say: a token that ran out, or a role that was changed, ended no job."""
    try:
        return launcher.look(job) in ("pending", "running")
    except AutoGLMError:
        return True


def _is_kept(folder: Path) -> bool:
    path = folder / "keeper.json"
    return path.exists() and services.is_alive(Service.read(path))


def _standing(record: Submitted, **said: Any) -> Standing:
    return Standing(id=record.id, backend=record.settings["cluster"]["backend"], log=record.log, **said)
