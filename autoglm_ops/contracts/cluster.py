"""What a launcher is asked for, and what it answers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Protocol

from autoglm_ops.contracts.record import Record


class JobSpec(Record):
    """One command in one workspace. Secrets are named here and never held."""

    name: str
    command: tuple[str, ...]
    workdir: str
    environment: dict[str, str] = {}
    secrets: tuple[str, ...] = ()
    deadline_seconds: float | None = None
    log: str | None = None


class JobStatus(Record):
    """How a job ended. `exit` is the stage's own exit code, unaltered."""

    state: Literal["succeeded", "failed", "cancelled", "deadline"]
    exit: int
    seconds: float
    reason: str = ""


class Launcher(Protocol):
    """Runs a job to its end. A cancel (SIGTERM) ends the whole job, children included."""

    def run(self, job: JobSpec) -> JobStatus: ...


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
