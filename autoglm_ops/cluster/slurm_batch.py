"""A job as the words of an sbatch command. Pure.

The script that Slurm runs is always the same; what differs, differs in words of a command line that no shell reads (threat F27).
Values of the environment are in no word either: sbatch takes them from its own environment, by name, so that a secret is neither in
a process list nor in a script that `scontrol` shows. (Slurm itself keeps a job's environment with the job, for its own user alone.)
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoglm_ops.contracts.cluster import JobSpec
from autoglm_ops.contracts.slurm import SlurmPlace
from autoglm_ops.errors import UsageError

NICE = {"high": 0, "normal": 100, "low": 1000}
"""`--nice`: nobody but an operator may go below 0."""
SRUN = """\
# One task a node; when one ends badly, all end. srun does not take this number over from sbatch (since Slurm 22.05).
exec srun --kill-on-bad-exit=1 ${SLURM_CPUS_PER_TASK:+--cpus-per-task=$SLURM_CPUS_PER_TASK} -- "$@"
"""
SCRIPT = f"#!/bin/sh\n{SRUN}"
STOP_SECONDS = 60
"""A job is told to stop so long before Slurm's own limit, which is the deadline and two of these."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_MARK = re.compile(r"autoglm/([0-9a-f]{64})/([0-9]{1,9})/")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_TAKEN_ALONG = ("PATH", "PYTHONPATH", "HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR")


def log_of(job: JobSpec, place: SlurmPlace) -> Path:
    """Where a job's output goes: a folder that this machine and the nodes see."""
    return log_named(checked_name(job.handle), place)


def log_named(name: str, place: SlurmPlace) -> Path:
    return Path(place.logs).expanduser() / f"{name}.log"


def checked_name(name: str) -> str:
    """`name` itself. Raises UsageError unless it is one plain word, since it becomes a file's name and a filter of squeue's."""
    if not _NAME.fullmatch(name):
        raise UsageError(f"{name[:80]!r} cannot be a job's name: letters, digits, '.', '_' and '-', at most 128")
    return name


def words(job: JobSpec, place: SlurmPlace, script: Path, after: Sequence[str] = ()) -> list[str]:
    """The sbatch command; `after`: what Slurm calls the jobs that must have succeeded first. Raises UsageError for what no word can hold."""
    waits = f"afterok:{':'.join(after)}" if after else None
    own = {"job-name": checked_name(job.handle), "comment": mark(job), "output": pattern(log_of(job, place))}
    return [*sbatch(job, place, {**own, **dependency(waits)}), str(script), *command(job, place)]


def dependency(text: str | None) -> dict[str, object | None]:
    """Options. A job that waits in vain is removed by Slurm itself, so that it goes even when nobody is left who follows it."""
    return {} if text is None else {"dependency": text, "kill-on-invalid-dep": "yes"}


def sbatch(job: JobSpec, place: SlurmPlace, own: Mapping[str, object | None]) -> list[str]:
    """sbatch and its options: `own`, and those that `job` shares with jobs of its kind."""
    needs = job.resources
    limit = None if job.deadline_seconds is None else math.ceil((job.deadline_seconds + 2 * STOP_SECONDS) / 60)
    options: dict[str, object | None] = {
        **own,
        "nodes": needs.nodes,
        "ntasks": needs.nodes,
        "ntasks-per-node": 1,
        "gpus-per-node": needs.gpus or None,
        "cpus-per-task": None if needs.cpu is None else math.ceil(needs.cpu),
        "mem": None if needs.memory_gib is None else f"{math.ceil(needs.memory_gib * 1024)}M",
        "time": limit,
        "signal": None if limit is None else f"TERM@{STOP_SECONDS}",
        "nice": NICE[job.priority],
        "partition": place.partition,
        "account": place.account,
        "qos": place.qos,
        "chdir": str(Path(job.workdir).resolve()),
        "open-mode": "append",
        "export": ",".join(sorted(names(job))),
    }
    return ["sbatch", "--parsable", "--requeue", *(f"--{name}={value}" for name, value in options.items() if value is not None)]


def mark(job: JobSpec) -> str:
    """The comment by which our jobs are told from others', and found without their description."""
    return f"autoglm/{job.key or '-'}/{job.attempt}/{job.team}"


def marked(comment: str) -> tuple[str, int] | None:
    """(key, attempt) of a comment that `mark` wrote for work through the store."""
    found = _MARK.match(comment)
    return None if found is None else (found[1], int(found[2]))


def command(job: JobSpec, place: SlurmPlace) -> list[str]:
    """What a node runs. Raises UsageError when an image is asked for and nothing here starts one."""
    if job.image is not None and not any("{image}" in word for word in place.prefix):
        raise UsageError(
            f"job {job.name} asks for the image {job.image!r}, and Slurm itself starts none; set cluster.slurm.prefix, "
            'for instance [apptainer, exec, --nv, "{image}"], or leave cluster.image null'
        )
    prefix = [word.replace("{image}", job.image or "") for word in place.prefix if job.image or "{image}" not in word]
    found = [*prefix, *job.command]
    if any("\0" in word for word in found):
        raise UsageError(f"a word of the command of job {job.name} holds a NUL, which no command line can")
    return found


def names(job: JobSpec) -> set[str]:
    """The variables that go along. Raises UsageError for a name that is none."""
    wanted = {*job.surroundings, *job.secrets}
    for name in wanted:
        if not _VARIABLE.fullmatch(name):
            raise UsageError(f"{name!r} is not the name of an environment variable (job {job.name})")
    return {*wanted, *_TAKEN_ALONG}


def environment(job: JobSpec, ours: Mapping[str, str]) -> dict[str, str]:
    """sbatch's own environment: the names above with their values, and what finds the cluster. Secrets are ours.

    Raises UsageError when a named secret is not set.
    """
    missing = [name for name in job.secrets if name not in ours]
    if missing:
        raise UsageError(
            f"job {job.name} needs the secret {missing[0]}: set it in the environment of the process that launches jobs"
        )
    found = {name: ours[name] for name in (*_TAKEN_ALONG, "SLURM_CONF", *job.secrets) if name in ours}
    return {**found, **job.surroundings}


def pattern(path: Path) -> str:
    """An output name in which nothing is a pattern of Slurm's (%j, and a backslash that switches patterns off)."""
    text = str(path.absolute())
    if "\\" in text:
        raise UsageError(f"cluster.slurm.logs holds a backslash: {text!r}; choose another folder")
    return text.replace("%", "%%")
