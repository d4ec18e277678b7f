"""A child process that takes everything it started with it when it ends.

The child leads its own session. On Linux every descendant is also found by a mark in its environment, so one that left the
session (setsid, a daemon) is found too, and the child is told (PR_SET_PDEATHSIG) when we die without being able to say so.
Elsewhere the session's process group is all that is known.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from autoglm_ops.cluster import forked
from autoglm_ops.cluster.limits import LOOK_SECONDS, Limits, apply, used
from autoglm_ops.errors import UsageError

MARK = "AUTOGLM_JOB_MARKS"
"""Environment variable with one mark for every job around this process, outermost first."""
MAX_LINE = 1 << 16
POLL_SECONDS = 0.05
LINUX: bool = sys.platform == "linux"
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_libc = ctypes.CDLL(None) if LINUX else None

Sink = Callable[[str, bytes], None]
"""Called with "stdout" or "stderr" and one line (at most MAX_LINE bytes), from a thread of its own."""


class ChildProcess:
    """One command, started at once. `wait` returns its exit code, 128+N for death by signal N; then nothing of it is left."""

    def __init__(
        self,
        command: Sequence[str],
        *,
        cwd: Path,
        environment: Mapping[str, str],
        sink: Sink,
        grace: float = 10.0,
        limits: Limits = Limits(),
    ) -> None:
        self._mark = uuid.uuid4().hex
        self._grace = grace
        self._stopped = False  # a plain flag: a signal handler may not wait for the lock of an Event that it interrupted
        self._limits, self._next_look = limits, 0.0
        self.outgrew = 0
        """Bytes it held when it was ended for holding more than its limit."""
        marks = f"{environment.get(MARK, '')} {self._mark}".strip()
        try:
            self._process = _start(command, cwd, {**environment, MARK: marks}, limits)
        except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
            raise UsageError(f"cannot start {command[0]!r} in {cwd}: {error.strerror}: {error.filename}") from error
        apply(self._process.pid, limits)
        self._pumps = [self._pump(self._process.stdout, "stdout", sink), self._pump(self._process.stderr, "stderr", sink)]

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def forked(self) -> bool:
        """Whether it was forked from a zygote; else it was started by itself, and imports everything anew."""
        return isinstance(self._process, forked.Forked)

    def stop(self) -> None:
        """Ask for the end. Safe in a signal handler and from any thread; `wait` does the work."""
        self._stopped = True

    @property
    def stopped(self) -> bool:
        return self._stopped

    def wait(self, seconds: float | None = None) -> int | None:
        """The exit code, or None when `seconds` passed first (everything was then ended). An exception ends everything too."""
        deadline = None if seconds is None else time.monotonic() + seconds
        try:
            while self._process.poll() is None and not self.stopped and not self._outgrown():
                if deadline is not None and time.monotonic() >= deadline:
                    return None
                self._doze()
        finally:
            self._end()
        code = self._process.wait()
        return 128 - code if code < 0 else code

    def _outgrown(self) -> bool:
        now = time.monotonic()
        if self._limits.memory is None or not LINUX or now < self._next_look:
            return False
        self._next_look = now + LOOK_SECONDS
        held = used(self._members())
        self.outgrew = held if held > self._limits.memory else 0
        return bool(self.outgrew)

    def _doze(self) -> None:
        try:
            self._process.wait(POLL_SECONDS)
        except subprocess.TimeoutExpired:
            return

    def _end(self) -> None:
        """TERM, the grace, KILL; until neither the child nor a descendant is left. Then what they printed is read to its end."""
        self._signal(signal.SIGTERM)
        limit = time.monotonic() + self._grace
        while self._alive() and time.monotonic() < limit:
            time.sleep(POLL_SECONDS)
        while self._alive():
            self._signal(signal.SIGKILL)
            time.sleep(POLL_SECONDS)
        self._process.wait()
        for pump in self._pumps:
            pump.join(timeout=5)

    def _alive(self) -> bool:
        return self._process.poll() is None or bool(self._members())

    def _signal(self, number: signal.Signals) -> None:
        """Once to each: a second TERM would interrupt the clean-up that the first one began."""
        for pid in self._members():
            kill(pid, number)

    def _members(self) -> list[int]:
        """Living processes of this job, the child itself included; where only its group is known, that as one (negative)."""
        if LINUX:
            return marked(self._mark, group=self.pid)
        return [-self.pid] if self._process.poll() is None or kill(-self.pid, 0) else []

    def _pump(self, stream: IO[bytes] | None, name: str, sink: Sink) -> threading.Thread:
        def run() -> None:
            assert stream is not None  # both are pipes
            with stream:
                while line := stream.readline(MAX_LINE):
                    sink(name, line)

        thread = threading.Thread(target=run, name=f"pump-{name}", daemon=True)
        thread.start()
        return thread


def _start(
    command: Sequence[str], cwd: Path, environment: Mapping[str, str], limits: Limits
) -> subprocess.Popen[bytes] | forked.Forked:
    """Forked from a process that has imported what it needs, where there is one and `limits` have room for that; else by itself."""
    roomy = limits.memory is None or limits.memory >= forked.LEAST_MEMORY
    return (roomy and forked.start(command, cwd, environment)) or subprocess.Popen(
        list(command), cwd=cwd, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        start_new_session=True, preexec_fn=_die_with_parent if LINUX else None,
    )  # fmt: skip


def marked(mark: str, group: int | None = None) -> list[int]:
    """Living processes with `mark` in their environment or in the process group `group`, and all below them. Linux only.

    The parents are followed too because a process that changes its title (Airflow's do) writes over its environment.
    """
    table = {int(entry.name): row for entry in _processes() if (row := _look(entry, mark.encode(), group))}
    ours = {pid for pid, (_, found) in table.items() if found}
    while below := {pid for pid, (parent, _) in table.items() if parent in ours} - ours:
        ours |= below
    return sorted(ours)


def _processes() -> list[Path]:
    return [entry for entry in Path("/proc").iterdir() if entry.name.isdigit()] if LINUX else []


def _look(entry: Path, mark: bytes, group: int | None) -> tuple[int, bool] | None:
    """A living process: its parent, and whether it is marked or in the group. A zombie has nothing left to end."""
    try:
        state, parent, found = (entry / "stat").read_bytes().rpartition(b")")[2].split()[:3]  # proc(5), after the name
        if state in (b"Z", b"X"):
            return None
        return int(parent), int(found) == group or mark in (entry / "environ").read_bytes()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None


def _die_with_parent() -> None:
    # Runs between fork and exec: nothing but one already resolved C call is safe here.
    if _libc is not None:
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)


def kill(pid: int, number: int) -> bool:
    """Send a signal to a process, or to the group -pid. False when it is gone."""
    try:
        os.kill(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
