"""Servers that outlive the command that started them, and are stopped by another: exactly those, and all of each.

A server leads its own session and carries a mark in its environment. It is written down with its pid and start time before the
next one starts, so that a pid the system has given to somebody else is never mistaken for ours.
"""

from __future__ import annotations

import signal
import subprocess
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoglm_ops.cluster.process import LINUX, MARK, kill, marked
from autoglm_ops.contracts.record import Record
from autoglm_ops.errors import UsageError

_POLL_SECONDS = 0.1


class Service(Record):
    """One started server. `started` is the system's own word for its start, as `start_time` gives it."""

    name: str
    pid: int
    started: str
    mark: str
    url: str
    log: str


class Services(Record):
    """`$AUTOGLM_HOME/up.json`: what is up, in the order in which it was started."""

    services: tuple[Service, ...] = ()


def start(name: str, command: Sequence[str], *, environment: Mapping[str, str], cwd: Path, log: Path, url: str) -> Service:
    """Start a server that lives on when we end. Raises UsageError when there is no such command."""
    log.parent.mkdir(parents=True, exist_ok=True)
    mark = uuid.uuid4().hex
    marks = f"{environment.get(MARK, '')} {mark}".strip()
    with log.open("ab") as sink:
        try:
            child = subprocess.Popen(
                list(command), cwd=cwd, env={**environment, MARK: marks}, stdin=subprocess.DEVNULL, stdout=sink, stderr=sink,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise UsageError(f"cannot start {name} ({command[0]}): {error.strerror}") from error
    return Service(name=name, pid=child.pid, started=start_time(child.pid) or "", mark=mark, url=url, log=str(log))


def is_alive(service: Service) -> bool:
    """Whether the very process that was started still runs."""
    return bool(service.started) and start_time(service.pid) == service.started


def stop(services: Sequence[Service], grace: float = 15.0) -> list[str]:
    """End servers and everything they started, all at once: TERM, the grace, KILL. Returns the names of those that were there."""
    left = [service for service in services if _left(service)]
    names = [service.name for service in left]
    for service in left:
        _signal(service, signal.SIGTERM)
    limit = time.monotonic() + grace
    while left := [service for service in left if _left(service)]:
        if time.monotonic() >= limit:
            for service in left:
                _signal(service, signal.SIGKILL)
        time.sleep(_POLL_SECONDS)
    return names


def _left(service: Service) -> list[int]:
    """Living processes of the service. Its group counts unless the pid, and so the group's number, is somebody else's now."""
    ours = start_time(service.pid) in (None, service.started)
    if LINUX:
        return marked(service.mark, group=service.pid if ours else None)
    return [-service.pid] if is_alive(service) else []


def _signal(service: Service, number: signal.Signals) -> None:
    for pid in _left(service):
        kill(pid, number)


def start_time(pid: int) -> str | None:
    """When a process was started, in the system's own words; None when it is gone, or only its exit code is left."""
    if LINUX:
        try:
            fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] in (b"Z", b"X") else fields[19].decode()  # proc(5): field 22, ticks since boot
    answer = subprocess.run(["ps", "-o", "lstart=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
