"""The commands of Slurm: sbatch, squeue, scontrol, scancel. They are how every Slurm is spoken to, whichever its API."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path

from autoglm_ops.cluster import slurm_array
from autoglm_ops.cluster.slurm_state import Seat, array_size, element, parse, rows
from autoglm_ops.errors import Refused, TryAgain, UsageError

SECONDS = 60.0
"""How long one command may take: a client tries a controller that is being restarted for some time itself."""
_AWAY = re.compile(
    r"unable to contact slurm controller|socket timed out|connection refused|unable to establish|zero bytes|"
    r"unable to process configuration|slurm temporarily unable|authentication|munge|controller not",
    re.IGNORECASE,
)
_FULL = re.compile(r"(?:Assoc|QOS)(?:Grp|Max)SubmitJobs?\w*Limit|MaxSubmitJobsPerAccount")
"""The limits on how many jobs may wait and run at once, by the names that Slurm says them in, in a line before the one about any policy."""
_STEERS = ("SQUEUE_", "SCANCEL_", "SCONTROL_", "SLURM_CLUSTERS", "SLURM_TIME_FORMAT")
"""What a person's shell may hold to have these commands show less, of other clusters, or in other words: it had hidden our own jobs."""
_GONE = re.compile(r"invalid job id|already completing or completed", re.IGNORECASE)


def submit(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run sbatch. Returns the job's number. Raises Refused with Slurm's words, TryAgain when the controller is away or takes no more now."""
    done = _run(words, environment)
    if done.returncode != 0:
        said = _said(done)
        if _FULL.search(done.stderr):
            raise TryAgain(f"Slurm takes no more jobs of this user or account now: {said}; it does when others have ended")
        raise Refused(
            f"Slurm refuses the job: {said}; ask for what the cluster has (cluster.resources, cluster.slurm)",
            (f"unschedulable: {said}",),
        )
    return int(done.stdout.strip().partition(";")[0])


def find(handles: Collection[str]) -> dict[str, Seat]:
    """The newest job of ours of each handle, alone or in an array, as long as Slurm remembers it (MinJobAge, five minutes after its end)."""
    places: dict[str, tuple[int, int]] = {}
    for number, name, comment in mine(ended=True):
        for index, handle in enumerate(slurm_array.handles(name, comment)):
            if handle in handles:
                places[handle] = max(places.get(handle, (0, 0)), (number, index))
    seats = {number: seats_of(number) for number in sorted({number for number, _ in places.values()})}
    found = {handle: element(seats[number], index) for handle, (number, index) in places.items()}
    return {handle: seat for handle, seat in found.items() if seat is not None}


def mine(*, ended: bool = False) -> list[tuple[int, str, str]]:
    """(number, name, comment) of each job or array of ours that waits or runs; `ended`: of those that Slurm remembers, too."""
    states = ["--states=all"] if ended else []
    done = _run(["squeue", "--noheader", "--all", *states, f"--user={os.getuid()}", "--format=%F|%j|%k"])
    if done.returncode != 0:
        raise TryAgain(f"squeue failed: {_said(done)}")
    return rows(done.stdout)


def seats_of(number: int) -> list[Seat]:
    """Job `number`, or the elements of that array, of which those that wait share a seat."""
    done = _run(["scontrol", "--oneliner", "show", "job", str(number)])
    if done.returncode != 0:
        if _GONE.search(done.stderr):
            return []
        raise TryAgain(f"scontrol failed: {_said(done)}")
    return [parse(line) for line in done.stdout.splitlines() if line.startswith("JobId=")]


def most_elements() -> int:
    """How many elements this cluster lets an array have; 0 where it has no arrays."""
    done = _run(["scontrol", "show", "config"])
    if done.returncode != 0:
        raise TryAgain(f"scontrol failed: {_said(done)}")
    return array_size(done.stdout)


def cancel(seats: Iterable[Seat]) -> None:
    """TERM to every task, KILL to what is left after KillWait (30 s)."""
    idents = [seat.ident for seat in seats]
    done = _run(["scancel", *idents])
    if done.returncode != 0 and not _GONE.search(done.stderr):
        raise TryAgain(f"scancel failed: {_said(done)}")


def ping() -> str:
    """What the controller says of itself. Raises UsageError without the commands, TryAgain when it is away."""
    done = _run(["scontrol", "ping"])
    if done.returncode != 0 or " UP" not in done.stdout:
        raise TryAgain(f"Slurm is away: {done.stdout.strip() or _said(done)}")
    return done.stdout.strip().splitlines()[0]


def _run(words: Sequence[str], environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    try:
        done = subprocess.run(
            list(words), env=_asking() if environment is None else dict(environment), stdin=subprocess.DEVNULL, capture_output=True,
            text=True, errors="replace", timeout=SECONDS, check=False,
        )  # fmt: skip
    except FileNotFoundError as error:
        raise UsageError(f"{words[0]} is not installed here; jobs are launched from a login node of the cluster") from error
    except OSError as error:  # a command line that is too long
        raise UsageError(f"{words[0]} could not be called: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise TryAgain(f"{words[0]} did not answer within {SECONDS:g} s: is slurmctld there?") from error
    if done.returncode != 0 and _AWAY.search(done.stderr):
        raise TryAgain(f"Slurm is away: {_said(done)}")
    return done


def _asking() -> dict[str, str]:
    """Our environment for a question. Times are told without a zone: in UTC no hour comes twice (threats F26)."""
    return {**{name: value for name, value in os.environ.items() if not name.startswith(_STEERS)}, "TZ": "UTC"}


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [
        line.strip().removeprefix(f"{done.args[0]}: ").removeprefix("error: ")
        for line in done.stderr.splitlines()
        if line.strip()
    ]
    return " ".join(lines[-2:]) or f"{Path(done.args[0]).name} ended with exit {done.returncode}"
