"""What Slurm says of a job, and what that means. Pure."""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from autoglm_ops.contracts.cluster import JobStatus, Seen
from autoglm_ops.errors import BudgetSpent, Refused, TryAgain

CANCELLED = 128 + signal.SIGTERM
_PENDING = {"PENDING", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT", "RESV_DEL_HOLD"}
_RUNNING = {"RUNNING", "CONFIGURING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT", "RESIZING"}
_LOST = {"NODE_FAIL", "BOOT_FAIL", "PREEMPTED", "REVOKED"}
_NEVER = {
    "PartitionNodeLimit": "the partition has not so many nodes, or none with what is asked for",
    "PartitionConfig": "the partition has not so many nodes, or none with what is asked for",
    "PartitionTimeLimit": "the partition ends jobs sooner than cluster.deadline_seconds",
    "BadConstraints": "no node has what is asked for",
    "InvalidAccount": "cluster.slurm.account is not valid",
    "InvalidQOS": "cluster.slurm.qos is not valid",
    "DependencyNeverSatisfied": "a job that it was to wait for has not succeeded",
    "AccountNotAllowed": "cluster.slurm.account may not use the partition",
    "QOSNotAllowed": "cluster.slurm.qos may not use the partition",
    "MaxMemPerLimit": "it asks for more memory than a job may have",
    "AssocMaxWallDurationPerJobLimit": "cluster.deadline_seconds is over the account's limit",
    "QOSMaxWallDurationPerJobLimit": "cluster.deadline_seconds is over the limit of cluster.slurm.qos",
}
"""Reasons for waiting that no waiting ends. Others, such as Resources, Priority or a quota in use, do end."""
_PERHAPS_LATER = {"PartitionConfig", "PartitionNodeLimit"}  # also while nodes are away for repair
_FIELD = re.compile(r"(?:^| )([A-Za-z]+)=(\S*)")
_RANGE = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?(?::([0-9]{1,9}))?", re.ASCII)


class Seat(NamedTuple):
    """A job as `scontrol show job` has it. `why` is Slurm's own word for waiting or for the end; moments are seconds since the epoch.

    array, task: of an element, the number of its array and its index there ("3", or "3-7%2" of those that wait together); else 0 and "".
    """

    number: int
    name: str
    state: str
    why: str
    exit: int
    signal: int
    restarts: int
    nodes: str
    submitted: float
    started: float = 0.0
    array: int = 0
    task: str = ""

    @property
    def ident(self) -> str:
        """What Slurm's commands call it: 71, or 70_1 of an array."""
        return f"{self.array}_{self.task}" if self.array else str(self.number)

    @property
    def place(self) -> tuple[int, int]:
        """The number to ask for, and the index there; 0 of a job alone."""
        return (self.array, int(self.task)) if self.array else (self.number, 0)

    @property
    def seen(self) -> Seen:
        if self.state in _PENDING:
            return "pending"
        return "running" if self.state in _RUNNING else "ended"

    @property
    def hopeless(self) -> str | None:
        """Why it will not start, or None."""
        return _never(self.why) if self.seen == "pending" else None

    @property
    def hopeless_exit(self) -> int:
        return TryAgain.exit_code if self.why in _PERHAPS_LATER else Refused.exit_code


def parse(text: str) -> Seat:
    """One line of `scontrol --oneliner show job`. The first of a name counts: what a user wrote comes after what Slurm says."""
    fields: dict[str, str] = {}
    for name, value in _FIELD.findall(text):
        fields.setdefault(name, value)
    exit_code, _, number = fields.get("ExitCode", "0:0").partition(":")
    return Seat(
        number=int(fields["JobId"]),
        name=fields.get("JobName", ""),
        state=fields["JobState"],
        why=fields.get("Reason", "None"),
        exit=int(exit_code),
        signal=int(number or 0),
        restarts=int(fields.get("Restarts", "0")),
        nodes=fields.get("NodeList", ""),
        submitted=_moment(fields.get("SubmitTime", "")),
        started=_moment(fields.get("StartTime", "")),
        array=int(fields.get("ArrayJobId", "0")),
        task=fields.get("ArrayTaskId", ""),
    )


def rows(text: str) -> list[tuple[int, str, str]]:
    """Lines of squeue as `number|name|comment`, one a number. A name or comment of somebody else may hold anything, and is passed over then."""
    found: dict[int, tuple[int, str, str]] = {}
    for line in text.splitlines():
        number, *more = line.split("|", 2)
        if len(more) == 2 and number.isascii() and number.isdigit():
            found.setdefault(int(number), (int(number), more[0], more[1]))
    return list(found.values())


def array_size(config: str) -> int:
    """The most elements of an array, as `scontrol show config` has it: indices are below MaxArraySize, and max_array_tasks bounds their number."""
    size = re.search(r"^MaxArraySize\s*=\s*([0-9]+)", config, re.MULTILINE | re.ASCII)
    tasks = re.search(r"^SchedulerParameters\s*=.*max_array_tasks=([0-9]+)", config, re.MULTILINE | re.ASCII)
    found = [int(one[1]) for one in (size, tasks) if one]
    return min(found, default=0)


def element(seats: Sequence[Seat], index: int) -> Seat | None:
    """Element `index` of an array, of whose elements those that wait share a line; a job alone is its own. None when it is known no more."""
    if len(seats) == 1 and not seats[0].array:
        return seats[0]
    own = next((seat for seat in seats if seat.task == str(index)), None)
    together = next((seat for seat in seats if covers(seat.task, index)), None)
    return own or (together and together._replace(task=str(index)))


def covers(tasks: str, index: int) -> bool:
    """Whether Slurm's list of indices (`0,4-7,10-20:5%2`) has this one. A list that Slurm cut short (`...`) may have any."""
    if "..." in tasks:
        return True
    return any(_in_range(part, index) for part in tasks.partition("%")[0].split(","))


def _in_range(part: str, index: int) -> bool:
    found = _RANGE.fullmatch(part)
    if found is None:
        return False
    first, last, step = int(found[1]), int(found[2] or found[1]), int(found[3] or 1)
    return index in range(first, last + 1, max(step, 1))


def status(seat: Seat, seconds: float) -> JobStatus:
    """What the end of a job means. `exit` is the command's own where it had one."""

    def told(state: str, code: int, reason: str) -> JobStatus:
        where = f" (job {seat.ident}{f' on {seat.nodes}' if seat.nodes not in ('', '(null)') else ''})"
        return JobStatus.model_validate({"state": state, "exit": code, "seconds": seconds, "reason": reason + where})

    if seat.state == "COMPLETED":
        return JobStatus(state="succeeded", exit=0, seconds=seconds)
    if seat.state == "OUT_OF_MEMORY" or seat.why == "OutOfMemory":
        return told("lost", Refused.exit_code, "out-of-memory: Slurm ended it; raise cluster.resources.memory_gib")
    if seat.state in ("TIMEOUT", "DEADLINE"):
        return told(
            "deadline", BudgetSpent.exit_code, f"deadline: Slurm ended it ({seat.state}); raise cluster.deadline_seconds"
        )
    if seat.state in _LOST:
        return told("lost", TryAgain.exit_code, f"{seat.state.lower().replace('_', '-')}: it lost its node; it is tried again")
    if seat.state == "CANCELLED" and (never := _never(seat.why)) is not None:  # as --kill-on-invalid-dep does
        return told("refused", seat.hopeless_exit, never)
    if seat.state == "CANCELLED" or seat.exit == CANCELLED:
        return told("cancelled", CANCELLED, "cancelled: scancel, or a signal, asked for its end")
    if seat.exit:
        return told("failed", seat.exit, f"exit: it ended with exit code {seat.exit}")
    return told("lost", TryAgain.exit_code, f"{seat.state.lower()}: signal {seat.signal}, {seat.why}; it is tried again")


def _never(why: str) -> str | None:
    said = _NEVER.get(why)
    return None if said is None else f"unschedulable: Slurm says {why}: {said}"


def _moment(text: str) -> float:
    """Of a time as `slurm_commands` has it told, in UTC."""
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except ValueError:
        return 0.0
