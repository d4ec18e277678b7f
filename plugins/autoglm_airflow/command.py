"""One `python -m autoglm_ops …` child: started in the checkout, its output in the task's log, its end taken for what it is."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow.sdk.exceptions import AirflowException, AirflowFailException

from autoglm_ops.cluster.local import explain_exit
from autoglm_ops.cluster.process import ChildProcess
from autoglm_ops.errors import TryAgain

GRACE_SECONDS = 20.0
"""More than the launcher's own, which the child spends on ending its stage."""
INTERRUPTED = threading.Event()
"""Set when a task was told to stop. `drive`, which shares its process with the tasks, looks here."""

ALONE = "AUTOGLM_ONE_TASK_AT_A_TIME"
"""Set while `drive` runs the tasks, which mapped ones are no gain to."""


@dataclass(frozen=True)
class Ended:
    """How a command ended: its exit code, the last line of its stdout, and the last thing it said on stderr."""

    code: int
    answer: str
    said: str

    def json(self) -> Any:
        """The answer as JSON. Raises AirflowFailException when it is none: the contract is one line of JSON, last."""
        try:
            return json.loads(self.answer)
        except ValueError as error:
            raise AirflowFailException(
                f"the command ended well but its last line is not JSON: {self.answer[:200]!r}"
            ) from error

    def check(self, reason: str | None = None) -> None:
        """Exit codes (design §6): 0 is done; 75 and death by a signal are retried; everything else is not."""
        if self.code == 0:
            return
        why = reason or self.said or explain_exit(self.code)
        if self.code == TryAgain.exit_code:
            raise AirflowException(f"try again (exit {self.code}): {why}")
        if self.code > 128:
            raise AirflowException(f"{explain_exit(self.code)}; the attempt is repeated: {why}")
        raise AirflowFailException(f"exit {self.code}: {why}")


class Command:
    """Runs one child at a time. `stop` may be called by a signal handler."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._child: ChildProcess | None = None
        self._stopped = False

    def run(self, arguments: Sequence[str]) -> Ended:
        """Run `python -m autoglm_ops ARGUMENTS` in the checkout to its end."""
        python = os.environ.get("AUTOGLM_PYTHON") or sys.executable
        tails: dict[str, deque[str]] = {"stdout": deque(maxlen=1), "stderr": deque(maxlen=1)}

        def sink(stream: str, line: bytes) -> None:
            text = line.decode("utf-8", errors="replace").rstrip()
            if text:
                tails[stream].append(text)
                self._log.info("%s", _message(text))

        command = [python, "-m", "autoglm_ops", *arguments]
        # One thread each: Airflow runs as many tasks at once as the machine has room for.
        environment = {"OMP_NUM_THREADS": "1", **os.environ}
        self._child = ChildProcess(command, cwd=checkout(), environment=environment, sink=sink, grace=GRACE_SECONDS)
        how = "forked" if self._child.forked else "started"
        self._log.info("%s, process %d: autoglm %s", how, self._child.pid, " ".join(arguments))
        if self._stopped:  # by a signal that came while it was being started
            self._child.stop()
        try:
            code = self._child.wait()
        except BaseException:
            INTERRUPTED.set()
            raise
        assert code is not None  # only a deadline gives None
        answer, said = ("".join(tails[name]) for name in ("stdout", "stderr"))
        return Ended(code, answer, _message(said))

    def stop(self) -> None:
        INTERRUPTED.set()
        self._stopped = True
        if self._child is not None:
            self._child.stop()


def checkout() -> Path:
    """The user's checkout: $AUTOGLM_CHECKOUT, or the folder above plugins/."""
    return Path(os.environ.get("AUTOGLM_CHECKOUT") or Path(__file__).parents[2]).resolve()


def home() -> Path:
    """$AUTOGLM_HOME, or .autoglm in the checkout."""
    return Path(os.environ.get("AUTOGLM_HOME") or checkout() / ".autoglm").resolve()


def _message(line: str) -> str:
    """The message of a structured log line (logs.py), or the line."""
    if not line.startswith("{"):
        return line
    try:
        return str(json.loads(line).get("message", line))
    except (ValueError, AttributeError):
        return line
