"""A study whose trials are trained at once: `ask` for a round, `train` each of its looks anywhere, and `ask` again, until nothing is asked.

Only `ask` opens the study; a worker sees a look and the workspace, and leaves an answer and the trial's checkpoint in the scratch folder.
The stage `tune` then finds every answer and writes its report. It takes itself whatever is missing, so that nothing depends on how many
rounds somebody planned, and the same records come of `dvc repro` alone.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from pathlib import Path

from autoglm_ops.cluster.dispatch import run_work
from autoglm_ops.contracts.cluster import JobStatus
from autoglm_ops.errors import AutoGLMError, Tampered, TryAgain
from autoglm_ops.settings import Settings, load
from autoglm_ops.stages import away, launchers, runner, runs, tune
from autoglm_ops.stages.base import Context
from autoglm_ops.stages.desk import Attended, Desk, Told, answer, settled
from autoglm_ops.tuning.rounds import Look

STAGE = "tune"
DEATHS = ("lost", "deadline")
"""How a job ends over which somebody died: out of memory, deleted, too long. One that waits for its place or its quota has not begun."""


def ask(root: Path) -> tuple[Look, ...]:
    """Tell the study what came of the last round, and ask for the next one. The looks that are to be taken; none when the study is over.

    Whoever died over a look is found here: without an answer it is asked for again, and given up after recovery.restarts of that.
    """
    made = _ready(runner.context_of(STAGE, root))
    if made is None:
        return ()
    session = made.session()
    trainer = Attended(made.desk, _nobody, made.restarts)
    while looks := session.pending():
        missing = tuple(look for look in looks if settled(made.desk, look, made.restarts) is None)
        if missing:
            return missing
        for look in looks:
            session.take(look, trainer)
    return ()


def train(root: Path, look: Look) -> Told:
    """Take a look, in this process. Asked again, it answers what was told."""
    context = runner.context_of(STAGE, root)
    desk = Desk(context.scratch / "looks")
    if (told := desk.told(look)) is not None:
        return told
    trials = tune.trainer_of(context)
    told = answer(desk, look, trials)
    trials.pause()
    return told


def launch(root: Path, look: Look) -> Told:
    """Take a look where `cluster` says. Raises TryAgain when whoever took it died: somebody else may live.

    Raises StageFailedError when it cannot be taken (a quota, an image, a wrong setting). `completed/tune.json` says so then: the round is
    over, and no stage comes after it that could.
    """
    context, started = runner.context_of(STAGE, root), time.time()
    desk = Desk(context.scratch / "looks")
    if (told := desk.told(look)) is not None:
        return told
    desk.again(look)
    try:
        status = _job(context, desk, look)
    except TryAgain:
        raise
    except AutoGLMError as error:  # it was refused before there was a job
        status = JobStatus(state="refused", exit=error.exit_code, seconds=0, reason=str(error))
    told = desk.told(look)
    if told is not None:
        return told
    if status.state in DEATHS or status.exit not in (1, 2, 3):
        raise TryAgain(f"trial {look.number} has no score: {status.reason or status.state}; it is tried again")
    why = f"trial {look.number} was not trained: {status.reason or status.state}"
    with desk.refusing(look, why) as reasons:
        away.unfinished(root, STAGE, status.exit, reasons, started=started, attempt=max(1, runner.attempts(root, STAGE)))
    raise runs.StageFailedError(why, status.exit)


def _job(context: Context, desk: Desk, look: Look) -> JobStatus:
    command, root = ("trial", "run", f"--look={look.model_dump_json()}"), context.root
    settings = load(root / "params.yaml")
    if not away.is_away(STAGE, settings):
        return runs.here(root, "trial", command, settings)
    with desk.working(look, here=False):
        status = _away(context, look, command, settings)
    if status.state in DEATHS:
        desk.began(look)
    return status


def over(root: Path) -> bool:
    """Whether a study of rounds has an answer to everything it asked, so that `tune` has only its report to write."""
    settings = load(root / "params.yaml")
    return settings.tune.parallel > 1 and settings.tune.enabled and not ask(root)


def _nobody(number: int, choices: object, since: int, to: int) -> float:
    raise AssertionError("a coordinator trains nothing")


def _ready(context: Context) -> tune.Ready | None:
    space, _, why_not = tune.searched(context)
    return None if why_not else tune.ready(context, space)


def _away(context: Context, look: Look, command: tuple[str, ...], settings: Settings) -> JobStatus:
    """As a job of its own: the inputs of `tune` and the trial's checkpoint go there, the answer and the next checkpoint come back."""
    settings = settings.model_copy(update={"cluster": settings.cluster.of_team(settings.cluster.team)})
    launcher, python = launchers.open_launcher(settings)
    store, uri = away.store_of(context.root, settings)
    work = away.work_of(context.root, STAGE, settings, store)
    scratch = f"home/scratch/{context.scratch.name}"
    kept = f"trials/trial-{look.number}"
    inputs = dict(work.inputs)
    if (context.scratch / kept).is_dir():
        inputs[f"{scratch}/{kept}"] = store.put(context.scratch / kept)
    work = work.model_copy(
        update={
            "name": "trial",
            "command": ("python", "-m", "autoglm_ops", *command),
            "inputs": inputs,
            "outputs": (f"{scratch}/looks", f"{scratch}/{kept}"),
            "keeps": (),
        }
    )
    job = away.job_of("trial", settings, uri)
    status = run_work(work, job, launcher, store, python)
    with tempfile.TemporaryDirectory(prefix=".trial.", dir=context.scratch) as folder:
        for at, (path, digest) in enumerate(sorted(status.outputs.items())):
            _take(context, look, path.removeprefix(f"{scratch}/"), store.get(digest, Path(folder) / str(at)))
    return status


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
