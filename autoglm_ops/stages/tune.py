"""Stage `tune`: the search space, as production patched it → report.json, whose best settings `train` takes. Trials train in this process."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

from autoglm_ops.contracts.arrays import TokenArrays, TokenMeta
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.training import TuningReport
from autoglm_ops.feedback.levers import SPACE, apply
from autoglm_ops.settings import Settings, resolve
from autoglm_ops.stages import folders
from autoglm_ops.stages.base import Context, Outcome
from autoglm_ops.training.models import ModelSpec, build
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.settings import overlay
from autoglm_ops.tuning.space import Space, parse_space, patched

EVALUATIONS = 3
"""Scores of a trial at most: enough for the pruner, and each costs as much as twenty steps."""


def run(context: Context) -> Outcome:
    """Writes report.json (TuningReport). Raises UsageError (a bad space), BudgetSpent (the hard stop) or Refused."""
    started = time.monotonic()
    raw, reasons = _patched(context)
    space = parse_space(raw)
    if not context.settings.tune.enabled:
        report = _off(space, "tune.enabled is false")
    elif not space.dimensions:
        report = _off(space, "tune.space is empty")
    else:
        report = _study(context, space)
    report = report.model_copy(update={"reasons": (*reasons, *report.reasons)})
    report.write(context.out / "report.json")
    shutil.rmtree(context.scratch, ignore_errors=True)
    facts = {"verdict": report.verdict, "trials": len(report.trials), "best_value": report.best_value}
    return Outcome(reasons=report.reasons, facts=facts, measured={"seconds": round(time.monotonic() - started, 3)})


def _patched(context: Context) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`tune.space` under the run's patches, and what each did. One made for another value than the space has now is left out: the user
    changed params.yaml since, and the user wins."""
    patches, space = PatchSet.read(context.input("patches")), context.settings.tune.space
    applied = apply({f"{SPACE}{key}": value for key, value in space.items()}, patches)
    stale = {refusal.key: refusal.reason for refusal in applied.skipped if refusal.key.startswith(SPACE)}
    raw, reasons = patched(space, [patch for patch in patches.patches if patch.key not in stale])
    return raw, (*(f"stale patch of {key} left out: {reason}" for key, reason in stale.items()), *reasons)


def _off(space: Space, why: str) -> TuningReport:
    return TuningReport(
        verdict="off",
        objective="validation macro-F1",
        direction="maximize",
        space=space.as_settings(),
        reasons=(f"no trials: {why}",),
    )


def _study(context: Context, space: Space) -> TuningReport:
    # One thread, read when torch is imported: two on busy cores wait for each other (a trial took 46 CPU seconds instead of 10), and
    # the sums of one thread are the same however many cores a machine has.
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from autoglm_ops.training.rows import Rows
    from autoglm_ops.tuning import study

    torch.set_num_threads(1)
    tokens = context.output("tokenize")
    meta = TokenMeta.read(tokens / "meta.json")
    rows = Rows(TokenArrays.open(tokens, "train"), TokenArrays.open(tokens, "validation"), meta.pad_id, len(meta.labels))
    settings = context.settings
    budget = study.Budget(
        trials=settings.tune.trials,
        seconds=settings.tune.seconds,
        seed=settings.seed,
        context=f"{context.scratch.name} {settings.tune.steps}",
    )

    def objective(choices: study.Choices, report: study.Report) -> float:
        return _trial(context, meta, rows, choices, report)

    return study.run(space, _present(settings, meta, context, space), objective, budget, context.scratch)


def _trial(context: Context, meta: TokenMeta, rows: Any, choices: dict[str, Any], report: Any) -> float:
    """Train `tune.steps` steps with `choices` laid over the settings; returns the best validation macro-F1."""
    from autoglm_ops.training.plain import PlainEngine
    from autoglm_ops.training.progress import Progress
    from autoglm_ops.training.rows import fit

    settings = resolve(overlay(context.settings.model_dump(mode="json"), choices))
    train = settings.train.model_dump()
    train["evaluations"] = min(train["evaluations"], EVALUATIONS)
    recipe = Recipe.of(train, rows=len(rows.train), seed=settings.seed, steps=settings.tune.steps)
    module = build(ModelSpec.of(settings.model.model_dump(), meta, context.origin), settings.seed)

    def listen(progress: Progress) -> None:
        report(*progress.validation[-1])

    return fit(PlainEngine(module, recipe), rows, recipe, listeners=[listen], keep=False).best_score


def _present(settings: Settings, meta: TokenMeta, context: Context, space: Space) -> dict[str, Any]:
    """The present value of each key of the space; a null of the model section is its configuration's own."""
    values = {
        f"{section}.{key}": value for section in ("train", "model") for key, value in settings.model_dump()[section].items()
    }
    own = folders.model(context, settings, meta).overrides
    values |= {f"model.{key}": value for key, value in own.items()}
    return {dimension.key: values[dimension.key] for dimension in space.dimensions}
