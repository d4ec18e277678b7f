"""A study whose trials are trained at once: `ask` for a round, `train` each of its looks anywhere, and `ask` again, until nothing is asked.

Only `ask` opens the study; a worker sees a look and the workspace, and leaves an answer and the trial's checkpoint in the scratch folder.
The stage `tune` then finds every answer and writes its report. Whatever is missing it takes itself, or sends away by rounds
(`trials_away`), so that nothing depends on how many rounds somebody planned, and the same records come of `dvc repro` alone.
"""

from __future__ import annotations

import time
from pathlib import Path

from autoglm_ops.contracts.cluster import JobStatus
from autoglm_ops.errors import AutoGLMError, BudgetSpent, TryAgain
from autoglm_ops.settings import load
from autoglm_ops.stages import away, graph, locally, runner, runs, trials_away, tune
from autoglm_ops.stages.base import Context
from autoglm_ops.stages.desk import Attended, Desk, Told, answer, settled
from autoglm_ops.tuning.rounds import Look

STAGE = trials_away.STAGE


def ask(root: Path) -> tuple[Look, ...]:
    """Tell the study what came of the last round, and ask for the next one. The looks that are to be taken; none when the study is over.

    Whoever died over a look is found here: without an answer it is asked for again, and given up after recovery.restarts of that.
    Raises BudgetSpent at the hard stop; `completed/tune.json` says so then, as no stage comes after it that could.
    """
    started, made = time.time(), _ready(runner.context_of(STAGE, root))
    if made is None:
        return ()
    try:
        with made.desk.metered():
            return _missing(made)
    except BudgetSpent as error:
        inputs = runner.check_inputs(graph.find(STAGE), root)
        attempt = 1 + runner.attempts(root, STAGE)
        away.unfinished(root, STAGE, error.exit_code, error.reasons, started=started, attempt=attempt, inputs=inputs)
        raise


def _missing(made: tune.Ready) -> tuple[Look, ...]:
    """The looks of the present round without an answer. The hard stop is where it is for one process, and before more is begun."""
    session = made.session()
    trainer = Attended(made.desk, _nobody, made.restarts)
    while looks := session.pending():
        spent = made.desk.spent()
        missing = tuple(look for look in looks if settled(made.desk, look, made.restarts) is None)
        if missing:
            made.budget.check(spent, missing[0])
            return missing
        for look in looks:
            session.take(look, trainer)
            made.budget.check(spent, look)
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
    assert status is not None  # else there was an answer
    failed = trials_away.unanswered(look, status)
    if isinstance(failed, TryAgain):
        raise failed
    with desk.refusing(look, str(failed)) as reasons:
        away.unfinished(root, STAGE, status.exit, reasons, started=started, attempt=max(1, runner.attempts(root, STAGE)))
    raise runs.StageFailedError(str(failed), status.exit)


def _job(context: Context, desk: Desk, look: Look) -> JobStatus | None:
    settings = load(context.root / "params.yaml")
    if away.is_away(STAGE, settings):
        return trials_away.send(context, desk, (look,))[0]
    return locally.run(context.root, "trial", ("trial", "run", f"--look={look.model_dump_json()}"), settings)


def over(root: Path) -> bool:
    """Whether a study of rounds has an answer to everything it asked, so that `tune` has only its report to write."""
    settings = load(root / "params.yaml")
    return settings.tune.parallel > 1 and settings.tune.enabled and not ask(root)


def _nobody(number: int, choices: object, since: int, to: int) -> float:
    raise AssertionError("a coordinator trains nothing")


def _ready(context: Context) -> tune.Ready | None:
    space, _, why_not = tune.searched(context)
    return None if why_not else tune.ready(context, space)
