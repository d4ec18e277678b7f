"""What a job on this machine may use. Kept without privileges: no cgroup is needed, so it works in a container and for any user.

Processors are those it may run on. Memory is what all its processes hold together, shared pages counted once, looked at twice a second;
besides, no single process may have more private memory than that at any moment. Core files, which hold secrets, are never written.
"""

from __future__ import annotations

import math
import os
import random
import resource
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from autoglm_ops.contracts.cluster import Resources

OPEN_FILES = 65_536
LOOK_SECONDS = 0.5


class Limits(NamedTuple):
    """None is no limit. memory: bytes of the whole job."""

    cpus: int | None = None
    memory: int | None = None


def limits_of(resources: Resources) -> Limits:
    """Whole processors, rounded up."""
    cpus = None if resources.cpu is None else max(1, math.ceil(resources.cpu))
    memory = None if resources.memory_gib is None else int(resources.memory_gib * 2**30)
    return Limits(cpus, memory)


def apply(pid: int, limits: Limits) -> None:
    """To a process that was just started; its children inherit them. Linux only; elsewhere nothing is limited.

    Which processors is drawn: were it always the first ones, two jobs would share them while others idle.
    """
    if sys.platform != "linux":
        return
    try:
        _lower(pid, resource.RLIMIT_CORE, 0)
        _lower(pid, resource.RLIMIT_NOFILE, OPEN_FILES)
        if limits.memory is not None:
            _lower(pid, resource.RLIMIT_DATA, limits.memory)
        allowed = sorted(os.sched_getaffinity(pid))
        if limits.cpus is not None and limits.cpus < len(allowed):
            os.sched_setaffinity(pid, random.sample(allowed, limits.cpus))
    except ProcessLookupError:  # it has ended already
        return


def used(pids: Iterable[int]) -> int:
    """Bytes that these processes hold together."""
    return sum(_held(pid) for pid in pids)


def _lower(pid: int, kind: int, value: int) -> None:
    """Never above what we may have ourselves."""
    _, hard = resource.prlimit(pid, kind)
    most = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.prlimit(pid, kind, (most, most))


def _held(pid: int) -> int:
    """Its proportional set size; the resident set where the kernel does not tell, or not us."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1]) << 10
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        pass
    try:
        return int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
    except (FileNotFoundError, ProcessLookupError):
        return 0
