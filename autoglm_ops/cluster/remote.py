"""`python -m autoglm_ops.cluster.remote DIGEST`: what runs inside a pod, a Slurm job, or here: one attempt on described work.

It takes the description and its inputs from the store ($AUTOGLM_JOB_STORE, $AUTOGLM_JOB_ATTEMPT), lays them down in a fresh work
folder, runs the command in a process group of its own, keeps checkpoints as they appear, and puts back what came out. Its exit code
is the command's own; 75 when a newer attempt took over, 143 when it was told to stop. Nothing it prints holds a secret's value.
"""

from __future__ import annotations

import logging
import math
import mmap
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

from autoglm_ops import logs, tempfolder
from autoglm_ops.cluster import exchange, keeping
from autoglm_ops.cluster.local import CANCELLED, ended_status, environment_of, stopped_by_signals
from autoglm_ops.cluster.meeting import arrange, find, settle, settled, surroundings
from autoglm_ops.cluster.meeting import rank as meeting_rank
from autoglm_ops.cluster.process import ChildProcess
from autoglm_ops.contracts.cluster import JOB_ATTEMPT, JOB_STORE, JobStatus, Store, Work, WorkResult
from autoglm_ops.errors import AutoGLMError, Refused
from autoglm_ops.store import open_store

log = logging.getLogger(__name__)

PLACE = "AUTOGLM_JOB_FOLDER"
"""Where work folders are made; the system's temporary folder when it is not set."""
GRACE_SECONDS = 15.0
OF_THE_LAUNCHER = ("AUTOGLM_CHECKOUT", "AUTOGLM_HOME")
"""What a launcher on this machine has in its environment, and no pod has: a rehearsed job would work there and not in its own folder."""
_SHORTEST = 6


def main(key: str) -> int:
    """Run attempt $AUTOGLM_JOB_ATTEMPT on job `key`. Returns the exit code."""
    store = open_store(os.environ.get(JOB_STORE), Path.cwd())
    attempt = int(os.environ.get(JOB_ATTEMPT, "1"))
    if (done := exchange.finished(store, key)) is not None:
        log.info("attempt %d finished this job already", done.attempt)
        return done.exit
    exchange.check_newest(store, key, attempt)  # one that was overtaken before it began, or is requeued, would work for nothing
    work = exchange.described(store, key)
    with tempfolder.owned("autoglm-job-", os.environ.get(PLACE)) as folder:
        try:
            return _attempt(store, work, key, attempt, folder / "work")
        except Refused as error:  # the record says why, whatever becomes of this pod's log
            said = _clean(work)(str(error))
            _publish(store, WorkResult(key=key, attempt=attempt, state="failed", exit=error.exit_code, seconds=0, reason=said))
            raise


def _attempt(store: Store, work: Work, key: str, attempt: int, root: Path) -> int:
    lay_down(store, work, root)
    meeting = _meet(store, work, key, attempt, root)
    first = meeting_rank() == 0
    with keeping.Keeper(store, key, root, work.keeps if first else ()):
        status = _run(work, root, meeting)
    if status.state == "cancelled":
        return CANCELLED
    if not first:
        return status.exit
    return _publish(store, _result(store, work, key, attempt, root, status)).exit


def _meet(store: Store, work: Work, key: str, attempt: int, root: Path) -> dict[str, str]:
    """What earlier attempts kept is laid down, the same on all nodes; returns the environment by which their ranks meet."""
    if work.nodes == 1:
        keeping.restore(store, key, root)
        return {}
    if meeting_rank() == 0:
        meeting = arrange(store, key, attempt, keeping.last(store, key))
        if meeting.kept is not None:
            settle(store, key, attempt, meeting, had=keeping.had(store, meeting.kept, root))
    else:
        meeting = find(store, key, attempt)
        if meeting.kept is not None:
            _have_too(store, work, key, attempt, meeting.kept, root)
    return surroundings(meeting, work.nodes)


def _have_too(store: Store, work: Work, key: str, attempt: int, kept: exchange.Kept, root: Path) -> None:
    """A rank other than 0: have what rank 0 has, or nothing where it could not. Raises as `keeping.lay_down` does for what it alone lacks.

    The wait has the job's deadline: a rank 0 that ends before that ends the attempt, and nothing says how long a good download takes.
    """
    fault: AutoGLMError | None = None
    try:
        keeping.lay_down(store, kept, root)
    except AutoGLMError as error:
        fault = error
    if settled(store, key, attempt, work.deadline_seconds or math.inf):
        if fault is not None:
            raise fault
    elif fault is None:
        log.warning("what an earlier attempt kept is not used: rank 0 could not have it")
        shutil.rmtree(root / exchange.inside(kept.path))


def _result(store: Store, work: Work, key: str, attempt: int, root: Path, status: JobStatus) -> WorkResult:
    said = status.model_dump(exclude={"outputs"})
    return WorkResult(key=key, attempt=attempt, outputs=collect(store, work, root), **said)


def _publish(store: Store, result: WorkResult) -> WorkResult:
    """By rank 0 alone: the others' ends show in the pod and in rank 0's own."""
    if meeting_rank() != 0:
        return result
    standing = exchange.publish(store, result)
    log.info("attempt %d: %s (exit %d) after %.1f s", standing.attempt, standing.state, standing.exit, standing.seconds)
    return standing


def lay_down(store: Store, work: Work, root: Path) -> None:
    """Every input where the work expects it, each checked. Raises Refused for a path outside `root`, Tampered, TryAgain."""
    for path, digest in sorted(work.inputs.items()):
        target = root / exchange.inside(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        store.get(digest, target)
    root.mkdir(parents=True, exist_ok=True)


def collect(store: Store, work: Work, root: Path) -> dict[str, str]:
    """Put what came out into the store. Raises Refused when a secret's value is in it (threats F28)."""
    found = {}
    for path in work.outputs:
        folder = root / exchange.inside(path)
        if folder.is_dir() and any(item.is_file() for item in folder.rglob("*")):
            _refuse_secrets(folder, work)
            found[path] = store.put(folder)
    return found


def _run(work: Work, root: Path, more: dict[str, str]) -> JobStatus:
    started = time.monotonic()
    clean = _clean(work)
    inherited = environment_of(work.name, work.environment, work.secrets)
    environment = {
        **{name: value for name, value in inherited.items() if name not in OF_THE_LAUNCHER or name in work.environment},
        "PYTHONPATH": str(root),
        "PWD": str(root),
        **more,
    }

    def sink(stream: str, line: bytes) -> None:
        sys.stderr.write(clean(line.decode("utf-8", errors="replace")))
        sys.stderr.flush()

    command = [sys.executable if word == "python" and at == 0 else word for at, word in enumerate(work.command)]
    child = ChildProcess(command, cwd=root, environment=environment, sink=sink, grace=GRACE_SECONDS)
    with stopped_by_signals(child):
        code = child.wait(work.deadline_seconds)
    return ended_status(work.deadline_seconds, code, child.stopped, round(time.monotonic() - started, 3))


def _clean(work: Work) -> Callable[[str], str]:
    """Takes the secrets' values out of a line."""
    values = sorted({line for name in work.secrets for line in _lines_of(name)}, key=len, reverse=True)

    def clean(text: str) -> str:
        for value in values:
            text = text.replace(value, "***")
        return logs.redact(text)

    return clean


def _lines_of(name: str) -> list[str]:
    """What of a secret can stand in one line: a key has many, a file of one word ends in an empty one, and however it is escaped a break
    is not itself. Too short a line is no secret, and would blot out half of what is said."""
    return [line for text in os.environ.get(name, "").splitlines() if len(line := text.strip()) >= _SHORTEST]


def _refuse_secrets(folder: Path, work: Work) -> None:
    """A secret in a record would be in the store for ever; its longest line speaks for it. Every file is looked through, however large: that
    is a quarter of what its digest costs."""
    secrets = {name: os.fsencode(max(lines, key=len)) for name in work.secrets if (lines := _lines_of(name))}
    for path in folder.rglob("*"):
        if not (secrets and path.is_file() and path.stat().st_size):
            continue
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            held = [name for name, secret in secrets.items() if content.find(secret) >= 0]
        if held:
            raise Refused(
                f"{path.relative_to(folder.parent)} holds the value of the secret {held[0]}: nothing of this job is kept; "
                "find out which step writes its environment"
            )


def _leave(number: int, frame: FrameType | None) -> None:
    """The first process of a container does not die of SIGTERM by itself."""
    sys.exit(CANCELLED)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, _leave)
    logs.configure()
    try:
        sys.exit(main(sys.argv[1]))
    except AutoGLMError as error:
        log.error("%s", error)
        sys.exit(error.exit_code)
