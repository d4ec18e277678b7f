"""A group of ranks: one clean process imports torch, transformers and deepspeed once, forks the ranks, and watches them.

Importing takes 5 to 17 s and forking milliseconds, so two ranks start in half the time of two processes (facts: the deepspeed
launcher 31 s, torchrun 17 s), and ranks that died are forked again from what is imported already. It is a process of its own since a
fork is only safe before threads exist, and since thread counts are read from the environment when torch is imported. A rank that ends
ends the attempt; a group whose parent dies dies with it.

This module is the group's own process, which takes orders (`Order`) on standard input and answers on a pipe; `warm` is the other side.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import json
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import IO, Any

from autoglm_ops import logs, tempfolder
from autoglm_ops.errors import AutoGLMError, TryAgain
from autoglm_ops.training import nodes
from autoglm_ops.training.job import AnyJob, Failure, read_job

GRACE = 2.0
"""Seconds in which the other ranks may still say why they failed, and after which they are killed."""
BODY = "autoglm_ops.training.rank:work"
"""What a rank does: a function of (job, rank, meeting file, monotonic time of the order). Its module's `warm(job)` is called before forks."""
NO_NOTE = 74
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
"""The exit code of a rank whose disk did not take the note that says why it ended (EX_IOERR)."""
_PR_SET_PDEATHSIG = 1


def launch(job: AnyJob, folder: Path, body: str = BODY) -> None:
    """Run `job` once, to its end, in a process group of its own making; `folder` is for its notes. `supervisor.train` tries again.

    Raises the failed rank's own error (its class when it is one of ours), or TryAgain when a rank was killed from outside.
    """
    from autoglm_ops.training.warm import WarmGroup, error_of

    with WarmGroup(job, body) as group:
        group.start(job, folder)
        while not group.ended(timeout=60.0):
            pass
        if group.failure is not None:
            raise error_of(group.failure)


class Orders:
    """Lines of standard input, asked for with or without waiting. A closed input is the order to leave."""

    def __init__(self, handle: int = 0) -> None:
        self._handle, self._buffer = handle, b""

    def take(self, wait: bool) -> dict[str, Any] | None:
        """The next order; None when there is none yet. `{"leave": True}` once the other side has closed."""
        while b"\n" not in self._buffer:
            if not wait and not select.select([self._handle], [], [], 0)[0]:
                return None
            read = os.read(self._handle, 65536)
            if not read:
                return {"leave": True}
            self._buffer += read
        line, _, self._buffer = self._buffer.partition(b"\n")
        order: dict[str, Any] = json.loads(line)
        return order


def main(parent: int, reply: int, body: str) -> int:
    """The group's process: import, then fork and watch as often as it is told. Returns its exit code."""
    born = time.monotonic()
    _die_with(parent)
    logs.configure(stage="train")
    orders, (name, _, function) = Orders(), body.partition(":")
    sys.modules.setdefault("mlflow", None)  # type: ignore[arg-type]  # deepspeed's autotuner, never called, would import it for two seconds
    module = import_module(name)
    work, prepare = getattr(module, function), getattr(module, "warm", None)
    gc.collect()
    gc.freeze()  # what is imported stays where it is: ranks share its pages
    with os.fdopen(reply, "w") as tell:
        _say(tell, ready=round(time.monotonic() - born, 3))
        while "job" in (order := orders.take(wait=True) or {}):
            path = Path(order["job"])
            job = read_job(path)
            if prepare is not None:
                prepare(job)
            failed = _attempt(job, path.parent, work, born, orders, tell)
            _say(tell, ended=failed.model_dump() if failed else None)
            born = time.monotonic()
    return 0


def _attempt(
    job: AnyJob, folder: Path, work: Callable[..., None], born: float, orders: Orders, tell: IO[str]
) -> Failure | None:
    born = time.monotonic() if job.attempt > 1 else born

    def stopped() -> bool:
        return orders.take(wait=False) is not None

    for path in folder.glob("rank-*.json"):
        path.unlink()
    with tempfolder.owned("autoglm-ranks-") as meeting:
        spot = meeting / "store"

        def rank_body(rank: int) -> int:
            os.close(tell.fileno())
            return _guarded(rank, folder, lambda: work(job, rank, spot, born))

        with _ranks(nodes.here().ranks(job.plan.ranks), rank_body) as children:
            _say(tell, forked={str(rank): pid for pid, rank in children.items()})
            return _watch(children, folder, stopped)


def _say(tell: IO[str], **what: Any) -> None:
    tell.write(json.dumps(what) + "\n")
    tell.flush()


def _guarded(rank: int, folder: Path, body: Callable[[], None]) -> int:
    """Run a rank's work and return its exit code, having written why it failed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # a handler inherited from whoever forked us is about other work
    try:
        body()
    except BaseException as error:  # noqa: BLE001 - the border of a process: its exit code and note carry the error on
        code = error.exit_code if isinstance(error, AutoGLMError) else 1
        if not isinstance(error, AutoGLMError):
            traceback.print_exc()
        said = str(error).encode("utf-8", "backslashreplace").decode()  # the name of a file may be no text
        try:
            Failure(rank=rank, kind=type(error).__name__, exit=code, message=said).write(folder / f"rank-{rank}.json")
        except OSError as unwritten:
            why = f"{type(error).__name__}: {said}; no note of it could be written: {unwritten}"
            sys.stderr.write(f"rank {rank}: {why}\n")
            return NO_NOTE if unwritten.errno in _DISK else code
        return code
    return 0


@contextmanager
def _ranks(ranks: Iterable[int], body: Callable[[int], int]) -> Iterator[dict[int, int]]:
    """Fork `ranks`; yields {pid: rank}. None of them outlives the block."""
    children: dict[int, int] = {}
    group = os.getpid()
    try:
        for rank in ranks:
            pid = os.fork()
            if pid == 0:
                # _exit, whatever happens: a rank must not run the parent's clean-up, which kills the others. What it wrote is flushed here.
                code = 1
                try:
                    _die_with(group)
                    code = body(rank)
                    sys.stdout.flush()
                    sys.stderr.flush()
                except BaseException:  # noqa: BLE001 - as in `_guarded`
                    code = code or 1  # also of a rank whose work ended well and whose output is lost
                    traceback.print_exc()
                finally:
                    os._exit(code)
            children[pid] = rank
        yield children
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def _watch(children: dict[int, int], folder: Path, stopped: Callable[[], bool] = lambda: False) -> Failure | None:
    """Wait for all ranks, for the first failure and GRACE seconds more, or to be `stopped`. `children` is emptied of those that ended.

    A rank whose neighbour died fails too, with a broken connection: what is blamed is a kill, then an error of ours, then the first. After
    a kill nothing the others may say matters: they are not waited for, which was most of what a restart took (a rank that joins or saves does not see its neighbour die).
    """
    failures: list[Failure] = []
    deadline = float("inf")
    while children and time.monotonic() < deadline:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            if stopped():
                return Failure(rank=-1, kind="stopped", exit=TryAgain.exit_code, message="the group was told to stop")
            time.sleep(0.02)
            continue
        failure = _failure(children.pop(pid), os.waitstatus_to_exitcode(status), folder)
        if failure is not None:
            failures.append(failure)
            deadline = min(deadline, time.monotonic() + (0.0 if failure.kind == "killed" else GRACE))
    return min(failures, key=_blame, default=None)


def _blame(failure: Failure) -> int:
    if failure.kind == "killed":
        return 0
    return 1 if failure.exit in (2, 3) else 2


def _failure(rank: int, code: int, folder: Path) -> Failure | None:
    if code == 0:
        return None
    said = folder / f"rank-{rank}.json"
    if said.exists():
        return Failure.read(said)
    if code < 0:
        why = f"rank {rank} was killed by {signal_name(-code)}, perhaps for want of memory; another attempt continues from the newest checkpoint"
        return Failure(rank=rank, kind="killed", exit=TryAgain.exit_code, message=why, signal=-code)
    if code == NO_NOTE:
        return Failure(
            rank=rank,
            kind="OSError",
            exit=1,
            message="No space left on device, or a read-only file system: not even a note that says why it ended could be written; "
            "the log has the reason",
        )
    return Failure(rank=rank, kind="exit", exit=1, message=f"ended with exit {code} and said nothing")


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _die_with(parent: int) -> None:
    """Ask the kernel for SIGKILL when the parent dies, and leave at once if it already has."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
