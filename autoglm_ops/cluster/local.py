"""The local launcher: a job is a child process on this machine."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from autoglm_ops.cluster.limits import limits_of
from autoglm_ops.cluster.many import in_turn
from autoglm_ops.cluster.process import ChildProcess
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Seen
from autoglm_ops.errors import BudgetSpent, Refused, UsageError

log = logging.getLogger(__name__)

GRACE_SECONDS = 10.0
CANCELLED = 128 + signal.SIGTERM


class LocalLauncher:
    """Runs one job at a time. SIGTERM or SIGINT to this process ends the job, children included, and `run` says `cancelled`."""

    waits = False

    def __init__(self, grace: float = GRACE_SECONDS) -> None:
        self._grace = grace

    def run(self, job: JobSpec) -> JobStatus:
        """Run `job` to its end. Raises UsageError when it cannot start: no such command or folder, or a named secret is not set."""
        if job.resources.nodes > 1:
            raise UsageError(
                f"job {job.name} asks for {job.resources.nodes} nodes and this machine is one; set cluster.backend, or 1 node"
            )
        started = time.monotonic()
        environment = environment_of(job.name, job.surroundings, job.secrets)
        with sink_of(job) as sink:
            child = ChildProcess(
                job.command, cwd=Path(job.workdir), environment=environment, sink=sink, grace=self._grace,
                limits=limits_of(job.resources),
            )  # fmt: skip
            with stopped_by_signals(child):
                code = child.wait(job.deadline_seconds)
        seconds = round(time.monotonic() - started, 3)
        if child.outgrew:
            status = _outgrew(job, child.outgrew, seconds)
        else:
            status = ended_status(job.deadline_seconds, code, child.stopped, seconds)
        if status.state != "succeeded":
            log.warning("job %s: %s: %s", job.name, status.state, status.reason)
        return status

    def run_all(self, jobs: Sequence[JobSpec], slots: int | None = None) -> list[JobStatus]:
        """One after the other, however many slots there are: this machine's processors are not shared out."""
        return in_turn(self.run, jobs)

    def look(self, job: JobSpec) -> Seen:
        """Always absent: a job of this launcher ends with it."""
        return "absent"


def _outgrew(job: JobSpec, held: int, seconds: float) -> JobStatus:
    reason = (
        f"out-of-memory: its processes held {held / 2**30:.2f} GiB and may hold {job.resources.memory_gib:g}; raise "
        "cluster.resources.memory_gib, or give it less work"
    )
    return JobStatus(state="lost", exit=Refused.exit_code, seconds=seconds, reason=reason)


def ended_status(deadline: float | None, code: int | None, stopped: bool, seconds: float) -> JobStatus:
    """What a child's end means. `code` None: `deadline` seconds were over; `stopped`: a signal asked for it."""
    if code is None:
        reason = f"deadline: still running after {deadline:g} s; raise cluster.deadline_seconds, or give it less work"
        return JobStatus(state="deadline", exit=BudgetSpent.exit_code, seconds=seconds, reason=reason)
    if stopped:
        return JobStatus(state="cancelled", exit=CANCELLED, seconds=seconds, reason="cancelled: a signal asked for its end")
    if code == 0:
        return JobStatus(state="succeeded", exit=0, seconds=seconds)
    return JobStatus(state="failed", exit=code, seconds=seconds, reason=explain_exit(code))


def explain_exit(code: int) -> str:
    """`code` in words; a signal by its name."""
    if code <= 128:
        return f"exit: it ended with exit code {code}"
    try:
        name = signal.Signals(code - 128).name
    except ValueError:
        return f"exit: it ended with exit code {code}"
    hint = " (the kernel, when memory runs out, does that)" if name == "SIGKILL" else ""
    return f"signal: it was ended by {name}{hint}"


def environment_of(name: str, environment: Mapping[str, str], secrets: Sequence[str]) -> dict[str, str]:
    """Ours, with the job's laid over it. Secrets come from ours, so that no record ever holds one."""
    missing = [secret for secret in secrets if secret not in os.environ]
    if missing:
        raise UsageError(
            f"job {name} needs the secret {missing[0]}: set it in the environment of the process that launches jobs"
        )
    return {**os.environ, **environment}


class _Tee:
    """Every line to stderr and, when there is one, to the log. Stdout stays free for whoever called the launcher."""

    def __init__(self, file: BinaryIO | None) -> None:
        self._file = file
        self._lock = threading.Lock()

    def __call__(self, stream: str, line: bytes) -> None:
        with self._lock:
            sys.stderr.write(line.decode("utf-8", errors="replace"))
            sys.stderr.flush()
            if self._file is not None:
                self._file.write(line)
                self._file.flush()


@contextmanager
def sink_of(job: JobSpec) -> Iterator[_Tee]:
    """Where a job's lines go."""
    if job.log is not None:
        Path(job.log).parent.mkdir(parents=True, exist_ok=True)
    with nullcontext(None) if job.log is None else Path(job.log).open("ab") as file:
        yield _Tee(file)


def stopped_by_signals(child: ChildProcess) -> AbstractContextManager[None]:
    """SIGTERM and SIGINT stop the child and nothing else."""
    return on_signals(child.stop)


class Flag:
    """Set by a signal handler, which may not wait for the lock of an Event that it interrupted. True once set."""

    def __init__(self) -> None:
        self._set = False

    def set(self) -> None:
        self._set = True

    def __bool__(self) -> bool:
        return self._set


@contextmanager
def on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """In the main thread, SIGTERM and SIGINT call `stop` and do nothing else; elsewhere signals cannot be caught.

    `stop` runs between two instructions of this very thread: it may take no lock (a `Flag`, a pipe).
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def handler(number: int, frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)
