"""The commands of Slurm: sbatch, squeue, scontrol, scancel. They are how every Slurm is spoken to, whichever its API."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoglm_ops.cluster.slurm_batch import checked_name
from autoglm_ops.cluster.slurm_state import Seat, parse
from autoglm_ops.errors import Refused, TryAgain, UsageError

SECONDS = 60.0
"""How long one command may take: a client tries a controller that is being restarted for some time itself."""
_AWAY = re.compile(
    r"unable to contact slurm controller|socket timed out|connection refused|unable to establish|zero bytes|"
    r"unable to process configuration|slurm temporarily unable|authentication|munge|controller not",
    re.IGNORECASE,
)
_GONE = re.compile(r"invalid job id|already completing or completed", re.IGNORECASE)


def submit(words: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run sbatch. Returns the job's number. Raises Refused with Slurm's words, TryAgain when the controller is away."""
    done = _run(words, environment)
    if done.returncode != 0:
        said = _said(done)
        raise Refused(
            f"Slurm refuses the job: {said}; ask for what the cluster has (cluster.resources, cluster.slurm)",
            (f"unschedulable: {said}",),
        )
    return int(done.stdout.strip().partition(";")[0])


def find(name: str) -> Seat | None:
    """The newest job of ours with this name, as long as Slurm remembers it (MinJobAge, five minutes after its end)."""
    mine = str(os.getuid())
    done = _run(
        ["squeue", "--noheader", "--all", "--states=all", f"--user={mine}", f"--name={checked_name(name)}", "--format=%A"]
    )
    if done.returncode != 0:
        raise TryAgain(f"squeue failed: {_said(done)}")
    numbers = [int(line) for line in done.stdout.split()]
    return show(max(numbers)) if numbers else None


def mine() -> list[tuple[int, str, str]]:
    """(number, name, comment) of each job of ours that waits or runs."""
    done = _run(["squeue", "--noheader", "--all", f"--user={os.getuid()}", "--format=%A|%j|%k"])
    if done.returncode != 0:
        raise TryAgain(f"squeue failed: {_said(done)}")
    rows = (line.split("|", 2) for line in done.stdout.splitlines())
    return [(int(number), name, comment) for number, name, comment in rows]


def show(number: int) -> Seat | None:
    """Job `number`, or None when Slurm does not know it (any more)."""
    done = _run(["scontrol", "--oneliner", "show", "job", str(number)])
    if done.returncode != 0:
        if _GONE.search(done.stderr):
            return None
        raise TryAgain(f"scontrol failed: {_said(done)}")
    return parse(done.stdout.splitlines()[0])


def cancel(number: int) -> None:
    """TERM to every task, KILL to what is left after KillWait (30 s)."""
    done = _run(["scancel", str(number)])
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
            list(words), env=None if environment is None else dict(environment), stdin=subprocess.DEVNULL, capture_output=True,
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


def _said(done: subprocess.CompletedProcess[str]) -> str:
    lines = [
        line.strip().removeprefix(f"{done.args[0]}: ").removeprefix("error: ")
        for line in done.stderr.splitlines()
        if line.strip()
    ]
    return " ".join(lines[-2:]) or f"{Path(done.args[0]).name} ended with exit {done.returncode}"
