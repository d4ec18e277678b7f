"""The other side of `group`: starts its process, orders attempts, hears how they ended, and replaces a process that is gone."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from autoglm_ops import errors
from autoglm_ops.errors import AutoGLMError, TryAgain
from autoglm_ops.training.group import BODY, GRACE, signal_name
from autoglm_ops.training.job import AnyJob, Failure

PATIENCE = GRACE + 5.0
"""Seconds in which a group that was told to stop must have stopped; then its process is killed, and the ranks with it."""


class WarmGroup:
    """One group for the attempts of one job. Ranks of a second attempt start from the imported process of the first, if it lives."""

    def __init__(self, job: AnyJob, body: str = BODY) -> None:
        self._environment, self._body = _environment(job), body
        self._process: subprocess.Popen[bytes] | None = None
        self._pipe, self._heard = -1, b""
        self._ended = False
        self.failure: Failure | None = None
        """Why the attempt ended; None while it runs and when it ended well."""
        self.pids: dict[int, int] = {}
        """Rank -> process id, once they are forked."""
        self.cold_starts = 0

    def start(self, job: AnyJob, folder: Path) -> None:
        """Begin an attempt; `folder` is for its notes."""
        path = folder / "job.json"
        job.write(path)
        self._ended, self.failure, self.pids = False, None, {}
        if self._process is None or self._process.poll() is not None:
            self._open()
        try:
            self._order(job=str(path))
        except BrokenPipeError:  # it died between two attempts
            self._open()
            self._order(job=str(path))

    def ended(self, timeout: float) -> bool:
        """Whether the attempt is over, waiting for it up to `timeout` seconds."""
        until = time.monotonic() + timeout
        while not self._ended and (left := until - time.monotonic()) > 0:
            if select.select([self._pipe], [], [], left)[0]:
                self._hear()
        return self._ended

    def stop(self, because: Failure) -> None:
        """End the attempt now; `because` becomes its failure. The process stays for the next one unless it does not answer."""
        with suppress(BrokenPipeError):
            self._order(stop=True)
        if not self.ended(PATIENCE):
            self._kill()
        self._ended, self.failure = True, because

    @property
    def process_id(self) -> int | None:
        """Of the group's own process, while there is one."""
        return None if self._process is None else self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._kill()

    def _open(self) -> None:
        self._kill()
        self._pipe, write = os.pipe()
        command = [sys.executable, "-m", "autoglm_ops.training.group", str(os.getpid()), str(write), self._body]
        self._process = subprocess.Popen(command, env=self._environment, stdin=subprocess.PIPE, pass_fds=(write,))
        os.close(write)
        self._heard = b""
        self.cold_starts += 1

    def _order(self, **what: Any) -> None:
        assert self._process is not None and self._process.stdin is not None
        self._process.stdin.write(json.dumps(what).encode() + b"\n")
        self._process.stdin.flush()

    def _hear(self) -> None:
        read = os.read(self._pipe, 65536)
        if not read:
            self._gone()
            return
        *lines, self._heard = (self._heard + read).split(b"\n")
        for line in lines:
            told = json.loads(line)
            if "forked" in told:
                self.pids = {int(rank): pid for rank, pid in told["forked"].items()}
            if "ended" in told:
                self._ended, self.failure = True, Failure(**told["ended"]) if told["ended"] else None

    def _gone(self) -> None:
        """The process itself ended. Its ranks die with it."""
        assert self._process is not None
        code = self._process.wait()
        self._kill()
        self._ended = True
        if code < 0:
            why = f"the training group was killed by {signal_name(-code)}; another attempt continues from the newest checkpoint"
            self.failure = Failure(rank=-1, kind="killed", exit=TryAgain.exit_code, message=why, signal=-code)
            return
        why = f"the training group ended with exit {code} before a rank started; its log above says why"
        self.failure = Failure(rank=-1, kind="group", exit=1, message=why)

    def _kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            if self._process.stdin is not None:
                with suppress(BrokenPipeError):
                    self._process.stdin.close()
            self._process = None
        if self._pipe >= 0:
            os.close(self._pipe)
            self._pipe = -1


def error_of(failure: Failure) -> AutoGLMError:
    """What to raise for a failure: the rank's own error where it is one of ours."""
    if failure.exit == TryAgain.exit_code:
        return TryAgain(failure.message)
    kind = getattr(errors, failure.kind, None)
    if isinstance(kind, type) and issubclass(kind, AutoGLMError):
        return kind(failure.message)
    if failure.exit == errors.Refused.exit_code:
        return errors.Refused(failure.message)
    if failure.kind == "group":
        return AutoGLMError(failure.message)
    return AutoGLMError(f"rank {failure.rank} failed: {failure.kind}: {failure.message}")


def _environment(job: AnyJob) -> dict[str, str]:
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
