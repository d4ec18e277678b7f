"""Many jobs by a launcher that starts each by itself."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from autoglm_ops.contracts.cluster import JobSpec, JobStatus
from autoglm_ops.errors import AutoGLMError

Run = Callable[[JobSpec], JobStatus]


def in_turn(run: Run, jobs: Sequence[JobSpec]) -> list[JobStatus]:
    """One after the other; a cancel is meant for all that are left."""
    found: list[JobStatus] = []
    for job in jobs:
        stopped = bool(found) and found[-1].state == "cancelled"
        found.append(found[-1].model_copy(update={"seconds": 0.0}) if stopped else told(run, job))
    return found


def at_once(run: Run, jobs: Sequence[JobSpec], slots: int | None) -> list[JobStatus]:
    """Each by a thread of its own, at most `slots` of them. Signals reach no thread: they are the caller's."""
    with ThreadPoolExecutor(max(1, min(len(jobs), slots or len(jobs)))) as pool:
        return list(pool.map(lambda job: told(run, job), jobs))


def told(run: Run, job: JobSpec) -> JobStatus:
    """How the job ended, or what refused it."""
    try:
        return run(job)
    except AutoGLMError as error:
        return refused(error)


def refused(error: AutoGLMError) -> JobStatus:
    return JobStatus(state="refused", exit=error.exit_code, seconds=0, reason=str(error))
