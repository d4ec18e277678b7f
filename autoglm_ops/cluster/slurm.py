"""The Slurm launcher: a job is an sbatch job, many at once are an array; one task a node runs a job's command.

A job outlives this process: who runs the same handle again finds it, alone or as an element of an array, and follows it. Slurm requeues a
job whose node fails (and on `scontrol requeue`): it starts over with the same handle, and work that goes through the store continues from
what it kept there, so nothing needs a disk that the nodes share, but for the log: its folder must be seen here, or it stays on the node
and that is said.
"""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from autoglm_ops.cluster import slurm_array, slurm_batch, slurm_commands, slurm_watch
from autoglm_ops.cluster.local import Flag, on_signals, sink_of
from autoglm_ops.cluster.many import refused
from autoglm_ops.cluster.slurm_state import Seat, element
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Seen
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.errors import AutoGLMError, Refused

log = logging.getLogger(__name__)


class SlurmLauncher:
    """`poll`: seconds between two looks, of the log and of the job; of the job ten times that once it has run for a while."""

    waits = True

    def __init__(self, place: SlurmPlace, poll: float = 0.5) -> None:
        self._place, self._poll = place, poll

    def run(self, job: JobSpec) -> JobStatus:
        """Submit and follow. SIGTERM or SIGINT here cancels the job on the cluster; a kill leaves it, to be found again."""
        stop = Flag()
        with on_signals(stop.set):
            self.submit(job)
            return self._follow([job], stop)[0]

    def run_all(self, jobs: Sequence[JobSpec], slots: int | None = None) -> list[JobStatus]:
        """As `run`: those that are not on their way become one array, or several where a cluster or a comment ends. SIGTERM cancels all."""
        stop = Flag()
        with on_signals(stop.set):
            seats = slurm_commands.find({job.handle for job in jobs})
            missing = [job for job in jobs if job.handle not in seats or seats[job.handle].seen == "ended"]
            told = self._submit_all(missing, slots)
            going = [job for job in jobs if job.handle not in told]
            told.update(zip((job.handle for job in going), self._follow(going, stop), strict=True))
        return [told[job.handle] for job in jobs]

    def look(self, job: JobSpec) -> Seen:
        """What Slurm knows of this handle; `absent` again some minutes after its end."""
        seat = _seat(job.handle)
        return "absent" if seat is None else seat.seen

    def submit(self, job: JobSpec) -> None:
        """Start the job unless one of its handle waits or runs. Raises Refused with Slurm's reason, UsageError, TryAgain."""
        if self.look(job) in ("pending", "running"):
            return
        output = slurm_batch.log_of(job, self._place)
        _clear(output)
        after = [seat.ident for handle in job.after if (seat := _waited_for(handle)) is not None]
        with _script(slurm_batch.SCRIPT) as script:
            words = slurm_batch.words(job, self._place, script, after)
            number = slurm_commands.submit(words, slurm_batch.environment(job, os.environ))
        log.info("job %s is Slurm's %d; its log: %s", job.handle, number, output)

    def follow(self, job: JobSpec) -> JobStatus:
        """Its log to stderr from the beginning, until it ends. A signal ends the following alone."""
        return self._follow([job], Flag())[0]

    def cancel(self, job: JobSpec) -> bool:
        """scancel, and wait until it is gone. False when there was nothing to cancel."""
        seat = _seat(job.handle)
        if seat is None or seat.seen == "ended":
            return False
        slurm_watch.end([seat], self._poll)
        return True

    def sweep(self, wanted: Callable[[str, int], bool], *, dry: bool = False) -> list[str]:
        """End jobs of ours whose (key, attempt) is not `wanted`: an attempt that a newer one replaced can publish nothing."""
        gone = [seat for number, _, comment in slurm_commands.mine() for seat in _unwanted(number, comment, wanted)]
        if gone and not dry:
            slurm_commands.cancel(gone)
        return [f"{seat.name}_{seat.task}" if seat.array else seat.name for seat in gone]

    def _submit_all(self, jobs: Sequence[JobSpec], slots: int | None) -> dict[str, JobStatus]:
        """Returns those that Slurm did not take, by handle. Arrays that share `slots` run one after the other."""
        told: dict[str, JobStatus] = {}
        groups = slurm_array.groups(jobs, slurm_commands.most_elements()) if len(jobs) > 1 else [tuple(jobs)] if jobs else []
        before: str | None = None
        for group in groups:
            try:
                if len(group) > 1 or before is not None:
                    number = self._submit_array(group, slots, before)
                    before = str(number) if slots else None
                else:
                    self.submit(group[0])
            except AutoGLMError as error:
                told.update({job.handle: refused(error) for job in group})
        return told

    def _submit_array(self, group: Sequence[JobSpec], slots: int | None, before: str | None) -> int:
        name = slurm_array.name_of(group)
        for index in range(len(group)):
            _clear(slurm_array.log_of(name, str(index), self._place))
        with _script(slurm_array.SCRIPT) as script:
            words = slurm_array.words(group, self._place, script, slots, before)
            number = slurm_commands.submit(words, slurm_batch.environment(group[0], os.environ))
        log.info("%d jobs are Slurm's array %d (%s); their logs: %s/%s_*.log", len(group), number, name, self._place.logs, name)
        return number

    def _follow(self, jobs: Sequence[JobSpec], stop: Flag) -> list[JobStatus]:
        """A job that Slurm does not know is lost, and the others are followed."""
        with ExitStack() as stack:
            seats = slurm_commands.find({job.handle for job in jobs}) if jobs else {}
            watches = {
                job.handle: slurm_watch.Watch(job, seat, self._place, stack.enter_context(sink_of(job)))
                for job in jobs
                if (seat := seats.get(job.handle)) is not None
            }
            ended = slurm_watch.follow(list(watches.values()), self._poll, stop) if watches else []
        found = dict(zip(watches, ended, strict=True))
        return [found.get(job.handle) or slurm_watch.unknown(job, 0) for job in jobs]


def _seat(handle: str) -> Seat | None:
    return slurm_commands.find({handle}).get(handle)


def _waited_for(handle: str) -> Seat | None:
    """The job to wait for; None when it has succeeded. Raises Refused when it never will have."""
    seat = _seat(handle)
    if seat is None:
        raise Refused(
            f"dependency: Slurm knows no job {handle} (any more), so nothing can wait for it; start the job without it"
        )
    if seat.seen != "ended":
        return seat
    if seat.state == "COMPLETED":
        return None
    raise Refused(f"dependency: job {handle} has ended as {seat.state}, so what waits for its success would never start")


def _unwanted(number: int, comment: str, wanted: Callable[[str, int], bool]) -> list[Seat]:
    """The job, or those elements of the array, that nobody waits for and that have not ended."""
    marks = slurm_array.listed(comment)
    gone = [index for index, mark in enumerate(marks) if not wanted(*mark)]
    seats = slurm_commands.seats_of(number) if gone else []
    found = [element(seats, index) for index in gone]
    return [seat for seat in found if seat is not None and seat.seen != "ended"]


@contextmanager
def _script(text: str) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="autoglm-sbatch-") as folder:
        path = Path(folder) / "job.sh"
        path.write_text(text, encoding="ascii")
        yield path


def _clear(output: Path) -> None:
    """A log is appended to, since a requeued job goes on with it; what an older job of the name left there goes."""
    output.parent.mkdir(parents=True, exist_ok=True)
    output.unlink(missing_ok=True)
