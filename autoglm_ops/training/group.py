"""A group of ranks: one clean process imports torch, transformers and deepspeed once, forks the ranks, and watches them.

Importing takes 10 to 17 s and forking milliseconds, so two ranks start in half the time of two processes (facts: the deepspeed
launcher 31 s, torchrun 17 s). It is a process of its own since a fork is only safe before threads exist, and since thread counts are
read from the environment when torch is imported. A rank that ends ends the group; a group whose parent dies dies with it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from autoglm_ops import errors, logs
from autoglm_ops.contracts.record import write_text
from autoglm_ops.errors import AutoGLMError, TryAgain
from autoglm_ops.training.job import Failure, Job
from autoglm_ops.training.lm_job import LmJob

GRACE = 2.0
"""Seconds in which the other ranks may still say why they failed, and after which they are killed."""
_PR_SET_PDEATHSIG = 1


def launch(job: Job | LmJob, folder: Path) -> None:
    """Run `job` to its end in a process group of its own making; `folder` is for its notes.

    Raises the failed rank's own error (its class when it is one of ours), or TryAgain when a rank was killed from outside.
    """
    path = folder / "job.json"
    job.write(path)
    command = [sys.executable, "-m", "autoglm_ops.training.group", str(path), str(os.getpid())]
    process = subprocess.Popen(command, env=_environment(job), stdin=subprocess.DEVNULL)
    try:
        code = process.wait()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if code != 0:
        raise _error(folder, code)


def _environment(job: Job | LmJob) -> dict[str, str]:
    threads = str(job.plan.threads_per_rank)
    return {
        **os.environ,
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "DS_ACCELERATOR": job.plan.device,
        "HF_HUB_OFFLINE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }


def _error(folder: Path, code: int) -> AutoGLMError:
    path = folder / "failure.json"
    if not path.exists():
        if code < 0:
            return TryAgain(
                f"the training group was killed by {_signal(-code)}; another attempt continues from the newest checkpoint"
            )
        return AutoGLMError(f"the training group ended with exit {code} before a rank started; its log above says why")
    failure = Failure.read(path)
    if failure.exit == TryAgain.exit_code:
        return TryAgain(failure.message)
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, AutoGLMError):
        return kind(failure.message)
    if failure.exit == errors.Refused.exit_code:
        return errors.Refused(failure.message)
    return AutoGLMError(f"rank {failure.rank} failed: {failure.kind}: {failure.message}")


def main(path: Path, parent: int) -> int:
    """The group's process: import, fork, watch. Returns its exit code."""
    born = time.monotonic()
    _die_with(parent)
    logs.configure(stage="train")
    job, work = _body(path)
    with tempfile.TemporaryDirectory(prefix="autoglm-ranks-") as meeting:
        spot = Path(meeting) / "store"
        with _ranks(job.plan.ranks, lambda rank: _guarded(rank, path.parent, lambda: work(job, rank, spot, born))) as children:
            failed = _watch(children, path.parent)
    if failed is None:
        return 0
    write_text(path.parent / "failure.json", failed.to_json())
    return failed.exit


def _body(path: Path) -> tuple[Job | LmJob, Callable[..., None]]:
    """The job in the file `path`, and what its ranks do. Importing that is the group's slow part."""
    if json.loads(path.read_text(encoding="utf-8")).get("kind") == "causal-lm":
        from autoglm_ops.training import lm_rank

        return LmJob.read(path), lm_rank.work
    from autoglm_ops.training import rank

    return Job.read(path), rank.work


def _guarded(rank: int, folder: Path, body: Callable[[], None]) -> int:
    """Run a rank's work and return its exit code, having written why it failed."""
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)  # a handler inherited from whoever forked us is about other work
    try:
        body()
    except BaseException as error:  # noqa: BLE001 - the border of a process: its exit code and note carry the error on
        code = error.exit_code if isinstance(error, AutoGLMError) else 1
        Failure(rank=rank, kind=type(error).__name__, exit=code, message=str(error)).write(folder / f"rank-{rank}.json")
        if not isinstance(error, AutoGLMError):
            import traceback

            traceback.print_exc()
        return code
    return 0


@contextmanager
def _ranks(count: int, body: Callable[[int], int]) -> Iterator[dict[int, int]]:
    """Fork `count` ranks; yields {pid: rank}. None of them outlives the block."""
    children: dict[int, int] = {}
    group = os.getpid()
    try:
        for rank in range(count):
            pid = os.fork()
            if pid == 0:
                # _exit: a rank must not run the parent's clean-up. What it wrote is flushed here.
                _die_with(group)
                code = body(rank)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            children[pid] = rank
        yield children
    finally:
        for pid in children:
            os.kill(pid, signal.SIGKILL)
        for pid in children:
            os.waitpid(pid, 0)


def _watch(children: dict[int, int], folder: Path) -> Failure | None:
    """Wait for all ranks, or for the first failure and GRACE seconds more. `children` is emptied of those that ended.

    A rank whose neighbour died fails too, with a broken connection: what is blamed is a kill, then an error of ours, then the first.
    """
    failures: list[Failure] = []
    deadline = float("inf")
    while children and time.monotonic() < deadline:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if pid == 0:
            time.sleep(0.02)
            continue
        failure = _failure(children.pop(pid), os.waitstatus_to_exitcode(status), folder)
        if failure is not None:
            failures.append(failure)
            deadline = min(deadline, time.monotonic() + GRACE)
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
        why = f"rank {rank} was killed by {_signal(-code)}, perhaps for want of memory; another attempt continues from the newest checkpoint"
        return Failure(rank=rank, kind="killed", exit=TryAgain.exit_code, message=why)
    return Failure(rank=rank, kind="exit", exit=1, message=f"ended with exit {code} and said nothing")


def _signal(number: int) -> str:
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
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2])))
