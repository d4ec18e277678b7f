"""Many jobs as the elements of one Slurm array. Pure.

The elements of an array share script, name and comment. So the script gets every element's words, each behind their number, and runs its
own; and the comment lists whose attempt each index is, by which a job is found again as an element, `70_3`.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from autoglm_ops.cluster import slurm_batch
from autoglm_ops.contracts.cluster import JOB_ATTEMPT, JobSpec, handle_of
from autoglm_ops.contracts.record import digest_of
from autoglm_ops.contracts.slurm import SlurmPlace

COMMENT = 1024
"""Characters of a comment, over which Slurm refuses a job (job_mgr.c, _test_job_desc_fields)."""
SCRIPT = f"""\
#!/bin/sh
# Of the words, those of this element are left: behind each element's number of words are these.
task=$SLURM_ARRAY_TASK_ID
while [ "$task" -gt 0 ]; do
  shift "$(($1 + 1))"
  task=$((task - 1))
done
count=$1
shift
all=$#
for word do
  if [ "$count" -gt 0 ]; then set -- "$@" "$word"; fi
  count=$((count - 1))
done
shift "$all"
{slurm_batch.SRUN}"""
_ROSTER = re.compile(r"autoglm-array/((?:[A-Za-z0-9_-]{43}\.[0-9]{1,9},)+)/")
_NAME = re.compile(r"autoglm-(.+)-array-[0-9a-f]{16}", re.ASCII)
Mark = tuple[str, int]
"""(key, attempt)."""


def groups(jobs: Iterable[JobSpec], most: int) -> list[tuple[JobSpec, ...]]:
    """Jobs that can be one array each: alike in all but their work, at most `most`, and no more than a comment can list.

    A job that is not found by its key is a group of its own.
    """
    found: list[tuple[JobSpec, ...]] = []
    for _, alike in groupby(jobs, _kind):
        group: tuple[JobSpec, ...] = ()
        for job in alike:
            if group and (job.key is None or len(group) >= most or len(roster((*group, job))) > COMMENT):
                found.append(group)
                group = ()
            group = (*group, job)
        found.append(group)
    return found


def roster(jobs: Sequence[JobSpec]) -> str:
    """The comment of an array of `jobs`: whose attempt its indices are, in 46 characters each."""
    entries = "".join(f"{_short(job.key or '')}.{job.attempt}," for job in jobs)
    return f"autoglm-array/{entries}/{jobs[0].team}"


def listed(comment: str) -> tuple[Mark, ...]:
    """What `roster` wrote, or `slurm_batch.mark` for a job alone; nothing of others' comments."""
    if (alone := slurm_batch.marked(comment)) is not None:
        return (alone,)
    found = _ROSTER.match(comment)
    pairs = [entry.split(".") for entry in found[1].split(",")[:-1]] if found else []
    return tuple((_long(key), int(attempt)) for key, attempt in pairs)


def handles(name: str, comment: str) -> tuple[str, ...]:
    """The handles of a job's or an array's elements, by index, whoever's they are."""
    found = _NAME.fullmatch(name)
    if found is None or not comment.startswith("autoglm-array/"):
        return (name,)
    return tuple(handle_of(found[1], key, attempt) for key, attempt in listed(comment))


def name_of(jobs: Sequence[JobSpec]) -> str:
    """An array's name: its jobs' own, and a digest of whose attempts it is."""
    return slurm_batch.checked_name(f"autoglm-{jobs[0].name}-array-{digest_of([job.handle for job in jobs])[:16]}")


def log_of(name: str, task: str, place: SlurmPlace) -> Path:
    """Where element `task` of array `name` writes."""
    return slurm_batch.log_named(f"{name}_{task}", place)


def words(jobs: Sequence[JobSpec], place: SlurmPlace, script: Path, slots: int | None, after: str | None = None) -> list[str]:
    """The sbatch command of an array of `jobs`; `after`: the array that must have ended first, however.

    Raises UsageError for what no word can hold.
    """
    name = name_of(jobs)
    own: dict[str, object | None] = {
        "job-name": name,
        "comment": roster(jobs),
        "array": f"0-{len(jobs) - 1}" + (f"%{slots}" if slots else ""),
        "output": slurm_batch.pattern(slurm_batch.log_named(name, place)).removesuffix(".log") + "_%a.log",
        **slurm_batch.dependency(None if after is None else f"afterany:{after}"),
    }
    return [*slurm_batch.sbatch(jobs[0], place, own), str(script), *arguments(jobs, place)]


def arguments(jobs: Sequence[JobSpec], place: SlurmPlace) -> list[str]:
    """The words of the script: for each job their number, then they."""
    found = []
    for job in jobs:
        own = ["env", f"{JOB_ATTEMPT}={job.attempt}", *slurm_batch.command(job, place)]
        found += [str(len(own)), *own]
    return found


def _kind(job: JobSpec) -> JobSpec:
    """What elements of an array share."""
    return job.model_copy(update={"command": (), "key": job.key and "", "attempt": 0, "log": None})


def _short(key: str) -> str:
    return base64.urlsafe_b64encode(bytes.fromhex(key)).decode("ascii").rstrip("=")


def _long(short: str) -> str:
    return base64.urlsafe_b64decode(f"{short}=").hex()
