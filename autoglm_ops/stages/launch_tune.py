"""A launch's tuner: a short study of the learning rate, in this process, on the rows and the model that will be trained."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    from autoglm_ops.tuning import strategies, study

    low, high = float(rate.value) / SPREAD, float(rate.value) * SPREAD
    space = Space(dimensions=(Dimension(key="train.learning_rate", kind="loguniform", low=low, high=high),))
    seed, default = job.recipe.seed, {"train.learning_rate": rate.value}
    budget = study.Budget(trials=trials, steps=steps, seconds=SECONDS, seed=seed, context=f"{job.key()} {steps}")
    strategy = strategies.make("tpe", space, marks_of(steps), seed=seed, first=(default,))
    started = time.monotonic()
    session = study.Session(space, default, strategy, budget, study.Place(folder=folder))
    found = study.run(session, _Trials(job, steps), budget)
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
    if plan.device == "cuda" and (plan.zero_stage == 3 or plan.split):
        return f"{parameters:,} parameters are spread over {plan.ranks} ranks, and a trial is one process"
    return ""


def marks_of(steps: int) -> tuple[int, ...]:
    """The steps after which a trial is scored."""
    return tuple(sorted({max(1, steps // 2), steps}))


class _Trials:
    """Trains one trial at a time in this process, from mark to mark. A trial that is asked for again starts over: the same steps, the same score."""

    def __init__(self, job: LmJob, steps: int) -> None:
        self._job, self._steps = job, steps
        self._number = -1
        self._to: Callable[[int], float] = _untrained

    def __call__(self, number: int, choices: Mapping[str, Any], since: int, to: int) -> float:
        """Minus the validation loss at step `to`."""
        if number != self._number:
            self._to = _trained(self._job, float(choices["train.learning_rate"]), self._steps)
            self._number = number
        return -self._to(to)


def _untrained(to: int) -> float:
    raise AssertionError("no trial was opened")


def _trained(job: LmJob, rate: float, steps: int) -> Callable[[int], float]:
    """A fresh trial at `rate`: a function that trains it on to a step and gives the validation loss there."""
    import torch

    from autoglm_ops.training.callbacks.base import AfterValidation
    from autoglm_ops.training.lm_job import LOSSES
    from autoglm_ops.training.loop import run
    from autoglm_ops.training.packed import PackedFeed, PackedJudge, PackedRows
    from autoglm_ops.training.packing import packs
    from autoglm_ops.training.plain import PlainEngine
    from autoglm_ops.training.progress import Progress

    torch.set_num_threads(1)
    rows = min(MOST_ROWS, job.recipe.batch_size)
    recipe = job.recipe.model_copy(
        update={"learning_rate": rate, "steps": steps, "batch_size": rows, "report": marks_of(steps), "warmup_share": 0.25}
    )
    module = job.model.build(recipe.seed)
    packed = packs(module, job.model.vocabulary)
    objective = LOSSES.get(job.loss)(recipe.label_smoothing)
    engine = PlainEngine(module, recipe, rows, objective)
    folder, progress = Path(job.rows), Progress()
    judge = PackedJudge(PackedRows(folder / "validation"), objective, job.model.pad_id, packed, most=16)
    feed = PackedFeed(PackedRows(folder / "train"), recipe, engine, job.model.pad_id, packed)

    def on_to(to: int) -> float:
        def pause(now: Progress) -> None:
            now.stop = "paused" if now.step >= to else ""

        if progress.step < to:
            progress.stop = ""
            run(engine, feed, judge, recipe, callbacks=[AfterValidation(pause)], progress=progress, keep=False)
        return dict(progress.validation)[to]

    return on_to
