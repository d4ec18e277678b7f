"""What Slurm says of a job, and what that means. Pure."""

from __future__ import annotations

import re
import signal
from datetime import datetime
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
    "DependencyNeverSatisfied": "a job that it waits for has failed",
    "AccountNotAllowed": "cluster.slurm.account may not use the partition",
    "QOSNotAllowed": "cluster.slurm.qos may not use the partition",
    "MaxMemPerLimit": "it asks for more memory than a job may have",
    "AssocMaxWallDurationPerJobLimit": "cluster.deadline_seconds is over the account's limit",
    "QOSMaxWallDurationPerJobLimit": "cluster.deadline_seconds is over the limit of cluster.slurm.qos",
}
"""Reasons for waiting that no waiting ends. Others, such as Resources, Priority or a quota in use, do end."""
_PERHAPS_LATER = {"PartitionConfig", "PartitionNodeLimit"}  # also while nodes are away for repair
_FIELD = re.compile(r"(?:^| )([A-Za-z]+)=(\S*)")


class Seat(NamedTuple):
    """A job as `scontrol show job` has it. `why` is Slurm's own word for waiting or for the end."""

    number: int
    name: str
    state: str
    why: str
    exit: int
    signal: int
    restarts: int
    nodes: str
    submitted: float

    @property
    def seen(self) -> Seen:
        if self.state in _PENDING:
            return "pending"
        return "running" if self.state in _RUNNING else "ended"

    @property
    def hopeless(self) -> str | None:
        """Why it will not start, or None."""
        said = _NEVER.get(self.why) if self.seen == "pending" else None
        return None if said is None else f"unschedulable: Slurm says {self.why}: {said}"

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
    )


def status(seat: Seat, seconds: float) -> JobStatus:
    """What the end of a job means. `exit` is the command's own where it had one."""

    def told(state: str, code: int, reason: str) -> JobStatus:
        where = f" (job {seat.number}{f' on {seat.nodes}' if seat.nodes not in ('', '(null)') else ''})"
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
    if seat.state == "CANCELLED" or seat.exit == CANCELLED:
        return told("cancelled", CANCELLED, "cancelled: scancel, or a signal, asked for its end")
    if seat.exit:
        return told("failed", seat.exit, f"exit: it ended with exit code {seat.exit}")
    return told("lost", TryAgain.exit_code, f"{seat.state.lower()}: signal {seat.signal}, {seat.why}; it is tried again")


def _moment(text: str) -> float:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return 0.0
