"""The Slurm launcher: a job is an sbatch job; one task a node runs its command.

A job outlives this process: who runs the same handle again finds it and follows it. Slurm requeues a job whose node fails (and on
`scontrol requeue`): it starts over with the same handle, and work that goes through the store continues from what it kept there, so
nothing needs a disk that the nodes share, but for the log: its folder must be seen here, or it stays on the node and that is said.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from autoglm_ops.cluster import slurm_batch, slurm_commands
from autoglm_ops.cluster.local import Flag, on_signals, sink_of
from autoglm_ops.cluster.slurm_state import CANCELLED, Seat, status
from autoglm_ops.cluster.tail import Tail
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Seen
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.errors import BudgetSpent, TryAgain

log = logging.getLogger(__name__)

ENDING_SECONDS = 120.0
"""How long a cancelled job may take to be gone: KillWait, 30 s by default, and some."""


class SlurmLauncher:
    """`poll`: seconds between two looks, of the log and of the job; of the job ten times that once it has run for a while."""

    def __init__(self, place: SlurmPlace, poll: float = 0.5) -> None:
        self._place, self._poll = place, poll

    def run(self, job: JobSpec) -> JobStatus:
        """Submit and follow. SIGTERM or SIGINT here cancels the job on the cluster; a kill leaves it, to be found again."""
        stop = Flag()
        with on_signals(stop.set):
            self.submit(job)
            return self._follow(job, stop)

    def look(self, job: JobSpec) -> Seen:
        """What Slurm knows of this handle; `absent` again some minutes after its end."""
        seat = slurm_commands.find(job.handle)
        return "absent" if seat is None else seat.seen

    def submit(self, job: JobSpec) -> None:
        """Start the job unless one of its handle waits or runs. Raises Refused with Slurm's reason, UsageError, TryAgain."""
        if self.look(job) in ("pending", "running"):
            return
        output = slurm_batch.log_of(job, self._place)
        output.parent.mkdir(parents=True, exist_ok=True)
        output.unlink(missing_ok=True)
        environment = slurm_batch.environment(job, os.environ)
        with tempfile.TemporaryDirectory(prefix="autoglm-sbatch-") as folder:
            script = Path(folder) / "job.sh"
            script.write_text(slurm_batch.SCRIPT, encoding="ascii")
            number = slurm_commands.submit(slurm_batch.words(job, self._place, script), environment)
        log.info("job %s is Slurm's %d; its log: %s", job.handle, number, output)

    def follow(self, job: JobSpec) -> JobStatus:
        """Its log to stderr from the beginning, until it ends. A signal ends the following alone."""
        return self._follow(job, Flag())

    def cancel(self, job: JobSpec) -> bool:
        """scancel, and wait until it is gone. False when there was nothing to cancel."""
        seat = slurm_commands.find(job.handle)
        if seat is None or seat.seen == "ended":
            return False
        self._end(seat)
        return True

    def sweep(self, wanted: Callable[[str, int], bool], *, dry: bool = False) -> list[str]:
        """End jobs of ours whose (key, attempt) is not `wanted`: an attempt that a newer one replaced can publish nothing."""
        found = [(number, name, slurm_batch.marked(comment)) for number, name, comment in slurm_commands.mine()]
        gone = [(number, name) for number, name, mark in found if mark is not None and not wanted(*mark)]
        for number, _ in gone if not dry else ():
            slurm_commands.cancel(number)
        return [name for _, name in gone]

    def _follow(self, job: JobSpec, stop: Flag) -> JobStatus:
        seat = slurm_commands.find(job.handle)
        if seat is None:
            return _unknown(job, 0)
        with sink_of(job) as sink:
            tail = Tail(slurm_batch.log_of(job, self._place))
            found = self._watch(job, seat, stop, lambda: tail.forward(sink))
            time.sleep(self._poll)  # the last lines are on their way when Slurm says that it ended
            tail.finish(sink)
        if not tail.seen and found.state not in ("refused", "cancelled"):
            log.warning("%s is not to be seen here: the nodes wrote it to a disk of their own (cluster.slurm.logs)", tail.path)
        if found.state != "succeeded":
            log.warning("job %s: %s: %s", job.name, found.state, found.reason)
        return found

    def _watch(self, job: JobSpec, seat: Seat, stop: Flag, forward: Callable[[], None]) -> JobStatus:
        """Until it ends by itself, by `stop`, or by its deadline, which counts from its submission."""
        begun, next_look = time.monotonic(), 0.0
        known = _Known(seat)
        while True:
            forward()
            seconds = round(time.monotonic() - begun, 3)
            if time.monotonic() >= next_look:
                if not known.refresh():
                    return _unknown(job, seconds)
                next_look = time.monotonic() + self._poll * (1 if seconds < 30 else 10)
            if known.seat.seen == "ended":
                return status(known.seat, seconds)
            if (ended := _ended_by_us(job, known.seat, stop, seconds)) is not None:
                self._end(known.seat)
                return ended
            time.sleep(self._poll)

    def _end(self, seat: Seat) -> None:
        slurm_commands.cancel(seat.number)
        limit = time.monotonic() + ENDING_SECONDS
        while time.monotonic() < limit:
            now = slurm_commands.show(seat.number)
            if now is None or now.seen == "ended":
                return
            time.sleep(self._poll)
        log.warning("Slurm's job %d is still ending", seat.number)


class _Known:
    """The last that was heard of a job. A controller that is away for a while, being restarted, ends nothing."""

    def __init__(self, seat: Seat) -> None:
        self.seat = seat
        self._away = False

    def refresh(self) -> bool:
        """False when Slurm knows the job no more."""
        try:
            seat = slurm_commands.show(self.seat.number)
        except TryAgain as error:
            if not self._away:
                log.warning("%s; the job goes on, and so does waiting for it", error)
            self._away = True
            return True
        self._away = False
        if seat is None:
            return False
        self._tell(seat)
        self.seat = seat
        return True

    def _tell(self, seat: Seat) -> None:
        if seat.restarts > self.seat.restarts:
            log.warning("job %s was requeued (restart %d): it continues from what it kept", seat.name, seat.restarts)
        if (seat.state, seat.why) != (self.seat.state, self.seat.why):
            log.info("job %s is %s%s", seat.name, seat.state.lower(), f": {seat.why}" if seat.why != "None" else "")


def _ended_by_us(job: JobSpec, seat: Seat, stop: Flag, seconds: float) -> JobStatus | None:
    if stop:
        return JobStatus(state="cancelled", exit=CANCELLED, seconds=seconds, reason="cancelled: a signal asked for its end")
    if seat.hopeless is not None:
        return JobStatus(state="refused", exit=seat.hopeless_exit, seconds=seconds, reason=seat.hopeless)
    if job.deadline_seconds is None or time.time() < seat.submitted + job.deadline_seconds:
        return None
    said = (
        f"it never started: Slurm says {seat.why}; ask for less, or raise cluster.start_seconds"
        if seat.seen == "pending"
        else "still running; raise cluster.deadline_seconds, or give it less work"
    )
    reason = f"deadline: after {job.deadline_seconds:g} s {said}"
    return JobStatus(state="deadline", exit=BudgetSpent.exit_code, seconds=seconds, reason=reason)


def _unknown(job: JobSpec, seconds: float) -> JobStatus:
    reason = f"lost: Slurm knows no job {job.handle} (any more); it is tried again"
    return JobStatus(state="lost", exit=TryAgain.exit_code, seconds=seconds, reason=reason)
