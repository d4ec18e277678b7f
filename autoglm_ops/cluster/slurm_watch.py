"""Following Slurm's jobs to their ends, one or many: their logs as they grow, and what Slurm says, with one question an array."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence

from autoglm_ops.cluster import slurm_array, slurm_batch, slurm_commands
from autoglm_ops.cluster.local import Flag
from autoglm_ops.cluster.process import Sink
from autoglm_ops.cluster.slurm_state import CANCELLED, Seat, element, status
from autoglm_ops.cluster.tail import Tail
from autoglm_ops.contracts.cluster import JobSpec, JobStatus
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.errors import BudgetSpent, TryAgain

log = logging.getLogger(__name__)

ENDING_SECONDS = 120.0
"""How long a cancelled job may take to be gone: KillWait, 30 s by default, and some."""
_FOR_OURS = {"Dependency", "JobArrayTaskLimit"}


class Watch:
    """A job that is followed: the last that was heard of it, and how it ended.

    since: seconds since the epoch from which its deadline counts: its start; until then its submission, or the last moment it waited for
    jobs of ours.
    """

    def __init__(self, job: JobSpec, seat: Seat, place: SlurmPlace, sink: Sink) -> None:
        self.job, self.seat = job, seat
        self.ended = status(seat, 0) if seat.seen == "ended" else None
        self.since = max(seat.submitted, seat.started if seat.seen == "running" else 0)
        path = slurm_array.log_of(seat.name, seat.task, place) if seat.array else slurm_batch.log_of(job, place)
        self._tail, self._sink, self._before = Tail(path), sink, f"[{seat.ident}] ".encode() if seat.array else b""

    def forward(self) -> None:
        self._tail.forward(self._line)

    def finish(self) -> None:
        """The rest of its log; a warning when it was not to be seen, and when it did not end well."""
        self._tail.finish(self._line)
        if self.ended is None:
            return
        if not self._tail.seen and self.ended.state not in ("refused", "cancelled"):
            log.warning(
                "%s is not to be seen here: the nodes wrote it to a disk of their own (cluster.slurm.logs)", self._tail.path
            )
        if self.ended.state != "succeeded":
            log.warning("job %s: %s: %s", self.job.name, self.ended.state, self.ended.reason)

    def hear(self, seats: Sequence[Seat], seconds: float, now: float) -> None:
        """Take in what Slurm says now of the job and of the others of its array."""
        seat = element(seats, self.seat.place[1])
        if seat is None:
            waited = (
                self.seat.array and self.seat.seen == "pending" and seats
            )  # of an element that never began Slurm keeps nothing
            self.ended = (
                status(self.seat._replace(state="CANCELLED", why="None"), seconds) if waited else unknown(self.job, seconds)
            )
            return
        self._tell(seat)
        self.seat = seat
        if seat.seen == "ended":
            self.ended = status(seat, seconds)
        elif seat.seen == "running":
            self.since = max(seat.submitted, seat.started)
        elif seat.why in _FOR_OURS or any(other.array and other.seen == "running" for other in seats):
            self.since = now

    def overdue(self, stop: Flag, seconds: float, now: float) -> JobStatus | None:
        """Why it is to be ended from here, if it is."""
        job, seat = self.job, self.seat
        if stop:
            return JobStatus(state="cancelled", exit=CANCELLED, seconds=seconds, reason="cancelled: a signal asked for its end")
        if seat.hopeless is not None:
            return JobStatus(state="refused", exit=seat.hopeless_exit, seconds=seconds, reason=seat.hopeless)
        if job.deadline_seconds is None or now < self.since + job.deadline_seconds:
            return None
        said = (
            f"it never started: Slurm says {seat.why}; ask for less, or raise cluster.start_seconds"
            if seat.seen == "pending"
            else "still running; raise cluster.deadline_seconds, or give it less work"
        )
        reason = f"deadline: after {job.deadline_seconds:g} s {said}"
        return JobStatus(state="deadline", exit=BudgetSpent.exit_code, seconds=seconds, reason=reason)

    def _line(self, stream: str, line: bytes) -> None:
        self._sink(stream, self._before + line)

    def _tell(self, seat: Seat) -> None:
        if seat.restarts > self.seat.restarts:
            log.warning("job %s was requeued (restart %d): it continues from what it kept", self.job.handle, seat.restarts)
        if (seat.state, seat.why) != (self.seat.state, self.seat.why):
            log.info("job %s is %s%s", self.job.handle, seat.state.lower(), f": {seat.why}" if seat.why != "None" else "")


def follow(watches: Sequence[Watch], poll: float, stop: Flag) -> list[JobStatus]:
    """Until each has ended: by itself, by `stop`, or by its deadline. How, in their order."""
    begun, next_look = time.monotonic(), 0.0
    asked = _Asked()
    while going := [watch for watch in watches if watch.ended is None]:
        for watch in watches:
            watch.forward()
        seconds = round(time.monotonic() - begun, 3)
        if time.monotonic() >= next_look:
            asked.ask(going, seconds)
            next_look = time.monotonic() + poll * (1 if seconds < 30 else 10)
        _end_overdue([watch for watch in going if watch.ended is None], stop, seconds, poll)
        if any(watch.ended is None for watch in going):
            time.sleep(poll)
    time.sleep(poll)  # the last lines are on their way when Slurm says that it ended
    for watch in watches:
        watch.finish()
    return [watch.ended or unknown(watch.job, 0) for watch in watches]


def end(seats: Sequence[Seat], poll: float) -> None:
    """Cancel jobs, and wait until they are gone."""
    slurm_commands.cancel(seats)
    left, limit = list(seats), time.monotonic() + ENDING_SECONDS
    while left and time.monotonic() < limit:
        left = [seat for seat in left if not _gone(seat)]
        if left:
            time.sleep(poll)
    for seat in left:
        log.warning("Slurm's job %s is still ending", seat.ident)


def unknown(job: JobSpec, seconds: float) -> JobStatus:
    reason = f"lost: Slurm knows no job {job.handle} (any more); it is tried again"
    return JobStatus(state="lost", exit=TryAgain.exit_code, seconds=seconds, reason=reason)


class _Asked:
    """Asks for all jobs. A controller that is away for a while, being restarted, ends nothing."""

    def __init__(self) -> None:
        self._away = False

    def ask(self, watches: Sequence[Watch], seconds: float) -> None:
        numbers = {watch.seat.place[0] for watch in watches}
        try:
            said = {number: slurm_commands.seats_of(number) for number in sorted(numbers)}
        except TryAgain as error:
            if not self._away:
                log.warning("%s; the job goes on, and so does waiting for it", error)
            self._away = True
            return
        self._away = False
        for watch in watches:
            watch.hear(said[watch.seat.place[0]], seconds, time.time())


def _end_overdue(watches: Sequence[Watch], stop: Flag, seconds: float, poll: float) -> None:
    over = [(watch, why) for watch in watches if (why := watch.overdue(stop, seconds, time.time())) is not None]
    try:
        if over:
            end([watch.seat for watch, _ in over], poll)
    except TryAgain as error:
        if stop:  # who was told to stop does not wait for a controller
            raise
        log.warning("%s; what is over its time is ended when it is back", error)
        return
    for watch, why in over:
        watch.ended = why


def _gone(seat: Seat) -> bool:
    number, index = seat.place
    try:
        now = element(slurm_commands.seats_of(number), index)
    except TryAgain:  # the cancel was taken; that it is done is heard later
        return False
    return now is None or now.seen == "ended"
