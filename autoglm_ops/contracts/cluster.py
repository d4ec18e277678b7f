"""What a launcher is asked for, and what it answers.

A job is described once (`Work`), kept in the artefact store by digest, and run anywhere by
`python -m autoglm_ops.cluster.remote DIGEST`. The digest of the description is the job's key: the same work has the same key. An
attempt is a claim on the key, numbered from 1; only the newest claim may publish, so what a forgotten pod still does changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Protocol, runtime_checkable

from pydantic import Field

from autoglm_ops.contracts.record import Record

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
State = Literal["succeeded", "failed", "cancelled", "deadline", "lost", "refused"]
"""lost: it ended without its own word (evicted, deleted, out of memory). refused: it was never started (quota, image, secret)."""
Seen = Literal["absent", "pending", "running", "ended"]
LOOKS_SECRET = re.compile(r"secret|passw|token|api_?key|access_?key|credential", re.IGNORECASE)
"""Names of variables whose values may be in no record; they are named, and taken from the environment where the work runs."""
JOB_STORE = "AUTOGLM_JOB_STORE"
JOB_ATTEMPT = "AUTOGLM_JOB_ATTEMPT"


class Resources(Record):
    """What each node of a job gets; None leaves it to the cluster."""

    nodes: int = Field(default=1, ge=1, le=1024)
    gpus: int = Field(default=0, ge=0, le=64)
    """Per node."""
    gpu: str | None = None
    """Their kind, as `autoglm plan --gpu` knows it: what the plan is made for when `train` leaves this machine."""
    cpu: float | None = Field(default=None, gt=0)
    memory_gib: float | None = Field(default=None, gt=0)


class Work(Record):
    """What a job does, wherever it runs.

    inputs: path in the work folder -> digest of the folder laid down there; "." is the work folder itself. outputs: folders that are
    put into the store when it ends; one that is not there is left out. A command's first word "python" is the interpreter it finds. keeps: patterns of folders that appear whole and never change
    (checkpoints): each is stored as it appears, and the newest of the last attempt is laid down for the next. environment holds no
    secrets; secrets are named, and taken from the environment of the process that runs the work.
    """

    name: str
    command: tuple[str, ...]
    inputs: dict[str, Digest] = {}
    outputs: tuple[str, ...] = ()
    keeps: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    deadline_seconds: float | None = None
    nodes: int = 1


class WorkResult(Record):
    """How an attempt on a key ended, as it is kept in the store. `outputs`: path -> digest of the folder."""

    key: Digest
    attempt: int
    state: State
    exit: int
    seconds: float
    reason: str = ""
    outputs: dict[str, Digest] = {}


class JobSpec(Record):
    """One command for a launcher. Secrets are named here and never held.

    workdir is where it starts on this machine; a cluster's job starts where its image says. key and attempt are set for work that goes
    through the store, and name the job on the cluster; store is where it finds it. after: handles of jobs that must have succeeded before
    it starts.
    """

    name: str
    command: tuple[str, ...]
    workdir: str = "."
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    deadline_seconds: float | None = None
    log: str | None = None
    image: str | None = None
    resources: Resources = Resources()
    team: str = "default"
    priority: Literal["low", "normal", "high"] = "normal"
    key: Digest | None = None
    attempt: int = 0
    store: str | None = None
    after: tuple[str, ...] = ()

    @property
    def surroundings(self) -> dict[str, str]:
        """Its environment, with what `autoglm_ops.cluster.remote` looks for where work goes through the store."""
        place = {} if self.store is None else {JOB_STORE: self.store, JOB_ATTEMPT: str(self.attempt)}
        return {**self.environment, **place}

    @property
    def handle(self) -> str:
        """The job's name on a cluster: one per key and attempt, so that it can be found again and cannot be started twice."""
        return self.name if self.key is None else handle_of(self.name, self.key, self.attempt)


def handle_of(name: str, key: str, attempt: int) -> str:
    """What an attempt on work through the store is called on a cluster."""
    return f"autoglm-{name}-{key[:16]}-{attempt}"


class JobStatus(Record):
    """How a job ended. `exit` is the stage's own exit code, unaltered. `outputs`: what work through the store left there."""

    state: State
    exit: int
    seconds: float
    reason: str = ""
    outputs: dict[str, Digest] = {}


class Launcher(Protocol):
    """Runs a job to its end. A cancel (SIGTERM) ends the whole job, children included.

    waits: whether a job of its can wait for others (`JobSpec.after`).
    """

    waits: bool

    def run(self, job: JobSpec) -> JobStatus:
        """Start the job, or follow the one of the same handle that is there already; its log goes to stderr."""
        ...

    def run_all(self, jobs: Sequence[JobSpec], slots: int | None = None) -> list[JobStatus]:
        """As `run`, for many: beside each other where that can be, at most `slots` at one moment. How each ended, in their order.

        One that cannot be started is `refused`, with the exit code of what `run` would have raised, and the others go on.
        """
        ...

    def look(self, job: JobSpec) -> Seen:
        """Whether a job of this handle is there, whoever started it. On this machine none outlives its launcher: always absent."""
        ...


@runtime_checkable
class Queue(Launcher, Protocol):
    """A launcher whose jobs outlive it."""

    def submit(self, job: JobSpec) -> None:
        """Start the job unless one of its handle is there. Raises Refused with the quota's, image's or secret's name, or TryAgain."""
        ...

    def follow(self, job: JobSpec) -> JobStatus:
        """Its log to stderr as it comes, until it ends."""
        ...

    def cancel(self, job: JobSpec) -> bool:
        """End it and remove what it left on the cluster. False when there was none."""
        ...

    def sweep(self, wanted: Callable[[str, int], bool], *, dry: bool = False) -> list[str]:
        """End jobs of ours whose (key, attempt) is not `wanted`. Returns their names."""
        ...


class Store(Protocol):
    """Artefacts by digest. What is put is immutable; what is got was checked."""

    def put(self, folder: Path) -> str:
        """Store a folder; returns its digest (`contracts.record.digest_path`)."""
        ...

    def get(self, digest: str, target: Path) -> Path:
        """Lay the folder down at `target` and check it. Raises Tampered, or TryAgain when the store is away."""
        ...

    def has(self, digest: str) -> bool: ...

    def note(self, name: str, digest: str) -> str:
        """Keep which artefact `kind/digest` of another kind of digest is kept as. The first note stays; returns the one that stands."""
        ...

    def noted(self, name: str) -> str | None:
        """The artefact that `note` kept under `name`. Raises Tampered when what stands there is no digest."""
        ...


FRESH_SECONDS = 3600.0
"""What was put longer ago is marked as used when it is put again. Nothing younger than a day is ever collected, so this is in time."""


class Entry(NamedTuple):
    """An artefact in a store: when it was put last (seconds since the epoch), and its files by sha256."""

    digest: str
    at: float
    files: dict[str, str]


@runtime_checkable
class Shelf(Store, Protocol):
    """A store that can be looked through and cleared."""

    def entries(self) -> Iterator[Entry]:
        """Every artefact. Raises Tampered, TryAgain."""
        ...

    def notes(self) -> Iterator[tuple[str, str]]:
        """Every note: its name and what it says."""
        ...

    def forget(self, name: str) -> None:
        """Remove a note; one that is not there is forgotten already."""
        ...

    def drop(self, digests: Collection[str], before: float) -> int:
        """Remove those of these artefacts that were last put before `before`, looked at once more. Returns the bytes that are free now."""
        ...
