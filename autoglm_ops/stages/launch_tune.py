"""A launch's tuner: a short study of the learning rate, in this process, on the rows and the model that will be trained."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING

from autoglm_ops.contracts.launch import Setting
from autoglm_ops.contracts.training import ParallelPlan, TuningReport
from autoglm_ops.tuning.space import Dimension, Space

if TYPE_CHECKING:
    from autoglm_ops.training.lm_job import LmJob

SPREAD = 8.0
"""The search goes from an eighth of the rule's rate to eight times it."""
MOST_ROWS = 8
"""Rows of a trial's batch: the ordering of rates needs no more, and a trial must not cost what the run does."""
SECONDS = 1800.0


def searched(job: LmJob, rate: Setting, trials: int, steps: int, folder: Path) -> tuple[Setting, TuningReport]:
    """The rate to train with, and the study. The rule's rate is trial 0, so the choice is never worse than it on the validation rows."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    from autoglm_ops.tuning import study

    low, high = float(rate.value) / SPREAD, float(rate.value) * SPREAD
    space = Space(dimensions=(Dimension(key="train.learning_rate", kind="loguniform", low=low, high=high),))
    budget = study.Budget(trials=trials, seconds=SECONDS, seed=job.recipe.seed, context=f"{job.key()} {steps}")
    started = time.monotonic()

    def objective(choices: study.Choices, report: study.Report) -> float:
        return -_trial(job, float(choices["train.learning_rate"]), steps, report)

    found = study.run(space, {"train.learning_rate": rate.value}, objective, budget, folder)
    found = found.model_copy(update={"objective": "minus the validation loss"})
    chosen = float(f"{found.best['train.learning_rate']:.3g}")
    first, best = found.trials[0].value or 0.0, found.best_value or 0.0
    why = (
        f"the tuner's best of {trials} trials of {steps} steps: validation loss {-best:.4f}, against {-first:.4f} at the rule's "
        f"{rate.value:g} ({rate.reason}); {time.monotonic() - started:.0f} s"
    )
    return Setting(key=rate.key, value=chosen, reason=why), found


def refusal(plan: ParallelPlan, parameters: int) -> str:
    """Why this run cannot be searched in one process; empty when it can."""
    if plan.device == "cuda" and plan.zero_stage == 3:
        return f"{parameters:,} parameters are sharded over {plan.ranks} ranks, and a trial is one process"
    return ""


def _trial(job: LmJob, rate: float, steps: int, report: object) -> float:
    """The validation loss after `steps` steps at `rate`."""
    import torch

    from autoglm_ops.training.callbacks.base import AfterValidation
    from autoglm_ops.training.lm_job import LOSSES
    from autoglm_ops.training.loop import run
    from autoglm_ops.training.packed import PackedFeed, PackedJudge, PackedRows
    from autoglm_ops.training.packing import keeps_apart
    from autoglm_ops.training.plain import PlainEngine

    torch.set_num_threads(1)
    rows = min(MOST_ROWS, job.recipe.batch_size)
    marks = tuple(sorted({max(1, steps // 2), steps}))
    recipe = job.recipe.model_copy(
        update={"learning_rate": rate, "steps": steps, "batch_size": rows, "report": marks, "warmup_share": 0.25}
    )
    module = job.model.build(recipe.seed)
    packed = keeps_apart(module, job.model.vocabulary)
    objective = LOSSES.get(job.loss)(recipe.label_smoothing)
    engine = PlainEngine(module, recipe, rows, objective)
    folder = Path(job.rows)
    judge = PackedJudge(PackedRows(folder / "validation"), objective, job.model.pad_id, packed, most=16)
    feed = PackedFeed(PackedRows(folder / "train"), recipe, engine, job.model.pad_id, packed)
    heard = [AfterValidation(lambda progress: report(progress.validation[-1][0], -progress.validation[-1][1]))]  # type: ignore[operator]
    return run(engine, feed, judge, recipe, callbacks=heard, keep=False).validation[-1][1]
