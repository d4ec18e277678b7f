"""Work through the store, by any launcher: described, claimed, run (or found running), and believed by its record alone.

A launcher says how its job ended; only a result in the store says that work was done (threats F22).
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from autoglm_ops.cluster import exchange
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Launcher, Store, Work, WorkResult
from autoglm_ops.errors import TryAgain, UsageError

log = logging.getLogger(__name__)


def run_work(work: Work, job: JobSpec, launcher: Launcher, store: Store, python: str) -> JobStatus:
    """Run `work` to its end where `job` says (its key, attempt and command are set here). The result of the key, if there is one, is the answer.

    Raises what the launcher raises, TryAgain when the store is away, Tampered when it answers for another job.
    """
    placed = place(work, job, launcher, store, python)
    if (done := exchange.finished(store, placed.key or "")) is not None:
        log.info("job %s is done already, by attempt %d", placed.name, done.attempt)
        return _status(done)
    return believed(store, placed, launcher.run(placed))


def run_works(
    works: Sequence[Work], job: JobSpec, launcher: Launcher, store: Store, python: str, slots: int | None = None
) -> list[JobStatus]:
    """As `run_work`, for many that differ in nothing else: at once where the launcher can, at most `slots` of them. How each ended, in order."""
    placed = [place(work, job, launcher, store, python) for work in works]
    done = [exchange.finished(store, one.key or "") for one in placed]
    said = iter(launcher.run_all([one for one, result in zip(placed, done, strict=True) if result is None], slots))
    return [
        believed(store, one, next(said)) if result is None else _status(result)
        for one, result in zip(placed, done, strict=True)
    ]


def believed(store: Store, placed: JobSpec, status: JobStatus) -> JobStatus:
    """How an attempt ended: what the store says, and what the launcher said only where the store says nothing.

    Of several nodes one is lost first, and what the others then fail of is that they lost it: the launcher's word is the cause.
    """
    if status.state == "cancelled":
        return status
    found = exchange.ended(store, placed.key or "", placed.attempt)
    bereft = found is not None and found.state == "failed" and status.state == "lost" and placed.resources.nodes > 1
    return _unsaid(status) if found is None or bereft else _status(found)


def place(work: Work, job: JobSpec, launcher: Launcher, store: Store, python: str) -> JobSpec:
    """`job` as the launcher gets it: the present attempt where it is still on its way, else a new one.

    Raises UsageError when it is to wait for others and this launcher's jobs cannot.
    """
    if job.after:
        check_waits(job.name, launcher)
    key = exchange.describe(store, work)
    command = (python, "-m", "autoglm_ops.cluster.remote", key)
    placed = job.model_copy(
        update={"command": command, "key": key, "secrets": tuple(dict.fromkeys((*job.secrets, *work.secrets)))}
    )
    attempt = exchange.newest(store, key)
    present = placed.model_copy(update={"attempt": attempt})
    if attempt and exchange.ended(store, key, attempt) is None and launcher.look(present) in ("pending", "running"):
        log.info("job %s is on its way already (attempt %d): following it", present.handle, attempt)
        return present
    if exchange.finished(store, key) is not None:
        return present
    return placed.model_copy(update={"attempt": exchange.claim(store, key)})


def check_waits(name: str, launcher: Launcher) -> None:
    """Raises UsageError where no job can wait for another one."""
    if not launcher.waits:
        raise UsageError(
            f"job {name} is to wait for others, which only Slurm's jobs can; set cluster.backend to slurm, or leave --after out"
        )


def _status(result: WorkResult) -> JobStatus:
    return JobStatus(state=result.state, exit=result.exit, seconds=result.seconds, reason=result.reason, outputs=result.outputs)


def _unsaid(status: JobStatus) -> JobStatus:
    """A job without a record. An exit of 0 then says nothing (apache/airflow #73006)."""
    if status.state != "succeeded":
        return status
    reason = "no-record: it ended with exit 0 but left no result in the store: not taken for done; it is tried again"
    return JobStatus(state="lost", exit=TryAgain.exit_code, seconds=status.seconds, reason=reason)
