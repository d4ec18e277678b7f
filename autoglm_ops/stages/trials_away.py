"""Looks of a study as jobs where `cluster` says: the inputs of `tune` and a trial's checkpoint go there, its answer and next checkpoint come back.

A round is sent at once (on Slurm as one array); a look is the same work, of the same key, however many are sent beside it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from autoglm_ops.cluster.dispatch import run_works
from autoglm_ops.contracts.cluster import JOB_STORE, JobStatus, Store, Work
from autoglm_ops.errors import AutoGLMError, Refused, Tampered, TryAgain
from autoglm_ops.settings import Settings
from autoglm_ops.stages import away, launchers
from autoglm_ops.stages.base import Context
from autoglm_ops.stages.desk import Desk, settled
from autoglm_ops.tuning.rounds import Look

STAGE = "tune"
DEATHS = ("lost", "deadline")
"""How a job ends over which somebody died: out of memory, deleted, too long. One that waits for its place or its quota has not begun."""


def leave(settings: Settings) -> bool:
    """Whether this process sends the rounds of its study away. A job, which is away itself, trains them."""
    return settings.tune.parallel > 1 and away.is_away(STAGE, settings) and JOB_STORE not in os.environ


def fetch(context: Context, desk: Desk, restarts: int, looks: Sequence[Look]) -> None:
    """Have every look of a round answered, those over which somebody died again, up to `restarts` times: then that is the answer.

    Raises Refused or TryAgain for the first look that has no answer and over which nobody died.
    """
    while missing := [look for look in looks if settled(desk, look, restarts) is None]:
        for look, status in zip(missing, send(context, desk, missing), strict=True):
            if status is not None and status.state not in DEATHS and desk.told(look) is None:
                raise unanswered(look, status)


def send(context: Context, desk: Desk, looks: Sequence[Look]) -> list[JobStatus | None]:
    """Run looks as jobs and take over what they leave, on the desk and in the scratch folder; who died over one is counted.

    Returns how each job ended, None for a look that somebody else had answered meanwhile.
    """
    with ExitStack() as stack:
        for look in looks:
            stack.enter_context(desk.working(look, here=False))
        missing = [look for look in looks if desk.told(look) is None]
        ended = _run(context, missing) if missing else []
        for look, status in zip(missing, ended, strict=True):
            if status.state in DEATHS and desk.told(look) is None:
                desk.began(look)
    found = {look.number: status for look, status in zip(missing, ended, strict=True)}
    return [found.get(look.number) for look in looks]


def unanswered(look: Look, status: JobStatus) -> AutoGLMError:
    """What to raise for a look whose job ended so and left no answer."""
    if status.state not in DEATHS and status.exit in (1, 2, 3):
        return Refused(f"trial {look.number} was not trained: {status.reason or status.state}")
    return TryAgain(f"trial {look.number} has no score: {status.reason or status.state}; it is tried again")


def _run(context: Context, looks: Sequence[Look]) -> list[JobStatus]:
    settings = context.settings
    settings = settings.model_copy(update={"cluster": settings.cluster.of_team(settings.cluster.team)})
    launcher, python = launchers.open_launcher(settings)
    store, uri = away.store_of(context.root, settings)
    stage = away.work_of(context.root, STAGE, settings, store)
    works = [_work(stage, context, look, store) for look in looks]
    ended = run_works(works, away.job_of("trial", settings, uri), launcher, store, python, settings.cluster.slots)
    with tempfile.TemporaryDirectory(prefix=".trial.", dir=context.scratch) as folder:
        for look, work, status in zip(looks, works, ended, strict=True):
            for path in sorted(set(work.outputs) & status.outputs.keys()):  # what was asked for, and nothing else in scratch
                got = store.get(status.outputs[path], Path(folder) / status.outputs[path])
                _take(context, look, path.removeprefix(f"{_scratch(context)}/"), got)
    return ended


def _work(stage: Work, context: Context, look: Look, store: Store) -> Work:
    """What `tune` itself would be sent, the trial's checkpoint, and the question."""
    kept = f"trials/trial-{look.number}"
    inputs = dict(stage.inputs)
    if (context.scratch / kept).is_dir():
        inputs[f"{_scratch(context)}/{kept}"] = store.put(context.scratch / kept)
    return stage.model_copy(
        update={
            "name": "trial",
            "command": ("python", "-m", "autoglm_ops", "trial", "run", f"--look={look.model_dump_json()}"),
            "inputs": inputs,
            "outputs": (f"{_scratch(context)}/looks", f"{_scratch(context)}/{kept}"),
            "keeps": (),
        }
    )


def _scratch(context: Context) -> str:
    """Where the scratch folder lies in a job."""
    return f"home/scratch/{context.scratch.name}"


def _take(context: Context, look: Look, path: str, got: Path) -> None:
    if path != "looks":
        shutil.rmtree(context.scratch / path, ignore_errors=True)
        (context.scratch / path).parent.mkdir(parents=True, exist_ok=True)
        got.rename(context.scratch / path)
        return
    told = Desk(got).told(look)
    if told is None:
        raise Tampered(f"the job of trial {look.number} answered another question than it was asked; run it again")
    Desk(context.scratch / path).tell(told)
