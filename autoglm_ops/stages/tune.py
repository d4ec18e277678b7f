"""Stage `tune`: the search space, as production patched it → report.json, whose best settings `train` takes. Trials train in this process."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from autoglm_ops.contracts.arrays import TokenArrays, TokenMeta
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.training import ParallelPlan, PastStudy, StudyHistory, TuningReport
from autoglm_ops.errors import UsageError
from autoglm_ops.feedback.levers import SPACE, apply
from autoglm_ops.settings import Settings, resolve
from autoglm_ops.stages import folders, studies
from autoglm_ops.stages.base import Context, Outcome
from autoglm_ops.training.models import ModelSpec, build, shape_of
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.settings import overlay
from autoglm_ops.tuning.moves import PAUSING, SIZE
from autoglm_ops.tuning.space import Space, changes, parse_space, patched

if TYPE_CHECKING:
    from autoglm_ops.tuning.study import Budget, Trainer

OBJECTIVE = "validation macro-F1"


def run(context: Context) -> Outcome:
    """Writes report.json (TuningReport). Raises UsageError (a bad space), BudgetSpent (the hard stop) or Refused."""
    started = time.monotonic()
    raw, reasons = _patched(context.settings, PatchSet.read(context.input("patches")))
    space = parse_space(raw)
    if not context.settings.tune.enabled:
        report = _off(space, "tune.enabled is false")
    elif not space.dimensions:
        report = _off(space, "tune.space is empty")
    else:
        report = _study(context, space)
    report = report.model_copy(update={"reasons": (*reasons, *report.reasons)})
    report.write(context.out / "report.json")
    _remember(context, report)
    shutil.rmtree(context.scratch, ignore_errors=True)
    facts = {"verdict": report.verdict, "trials": len(report.trials), "best_value": report.best_value}
    return Outcome(reasons=report.reasons, facts=facts, measured={"seconds": round(time.monotonic() - started, 3)})


def _patched(settings: Settings, patches: PatchSet) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`tune.space` under the run's patches, and what each did. One made for another value than the space has now is left out: the user
    changed params.yaml since, and the user wins."""
    space = settings.tune.space
    applied = apply({f"{SPACE}{key}": value for key, value in space.items()}, patches)
    stale = {refusal.key: refusal.reason for refusal in applied.skipped if refusal.key.startswith(SPACE)}
    raw, reasons = patched(space, [patch for patch in patches.patches if patch.key not in stale])
    return raw, (*(f"stale patch of {key} left out: {reason}" for key, reason in stale.items()), *reasons)


def _off(space: Space, why: str) -> TuningReport:
    return TuningReport(
        verdict="off",
        objective=OBJECTIVE,
        direction="maximize",
        space=space.as_settings(),
        reasons=(f"no trials: {why}",),
    )


def _study(context: Context, space: Space) -> TuningReport:
    # One thread, read when torch is imported: two on busy cores wait for each other (a trial took 46 CPU seconds instead of 10), and
    # the sums of one thread are the same however many cores a machine has.
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from autoglm_ops.tuning import strategies, study

    torch.set_num_threads(1)
    tune, budget = context.settings.tune, budget_of(context.settings, context.scratch.name)
    meta = TokenMeta.read(context.output("tokenize", "meta.json"))
    default = study.checked(space, _present(context.settings, meta, context, space))
    rungs = rungs_of(context.settings)
    strategy = strategies.make(
        tune.strategy,
        space,
        rungs,
        seed=context.settings.seed,
        first=(default,),
        earlier=_earlier(context),
        cost=_cost(context, meta),
    )
    place = study.Place(folder=context.scratch, url=context.settings.tracking.studies)
    report = study.run(space, default, strategy, _trials(context, meta, rungs), budget, place)
    heard = getattr(strategy, "reasons", ())
    return report.model_copy(update={"reasons": (*report.reasons, *heard)})


def budget_of(settings: Settings, name: str) -> Budget:
    """What the study `name` may take."""
    from autoglm_ops.tuning.study import Budget

    tune, asked = settings.tune, settings.tune.budget
    pausing = tune.strategy in PAUSING
    return Budget(
        trials=asked.trials or (SIZE if pausing else tune.trials),
        steps=tune.steps,
        total=asked.steps or (tune.trials * tune.steps if pausing else None),
        seconds=tune.seconds,
        cost=asked.cost,
        hourly=asked.hourly,
        seed=settings.seed,
        context=f"{name} {tune.steps}",
    )


def rungs_of(settings: Settings) -> tuple[int, ...]:
    """The steps after which trials are scored."""
    from autoglm_ops.tuning import strategies

    tune = settings.tune
    strategies.STRATEGIES.get(tune.strategy)
    return strategies.rungs_of(tune.strategy, tune.steps, min(tune.looks, tune.steps))


def dry_run(settings: Settings, patches: PatchSet, plan: ParallelPlan | None) -> dict[str, Any]:
    """What a study would search and may take, before a step is spent. Seconds and cost are None until `plan` said how long a step takes."""
    raw, reasons = _patched(settings, patches)
    space, budget = parse_space(raw), budget_of(settings, "")
    steps = budget.total or budget.trials * budget.steps
    seconds = round(steps * plan.step_seconds, 1) if plan and plan.step_seconds else None
    return {
        "strategy": settings.tune.strategy,
        "version": space.version,
        "space": space.as_settings(),
        "changes": list(changes(parse_space(settings.tune.space).as_settings(), space.as_settings())),
        "reasons": list(reasons),
        "rungs": list(rungs_of(settings)),
        "trials": budget.trials,
        "steps": steps,
        "seconds": seconds,
        "hard_stop_seconds": budget.seconds,
        "cost": None if seconds is None else round(seconds / 3600 * budget.hourly, 4),
    }


def _trials(context: Context, meta: TokenMeta, rungs: tuple[int, ...]) -> Trainer:
    """Trains with choices laid over the settings."""
    from autoglm_ops.training.initial import start
    from autoglm_ops.training.rows import Rows
    from autoglm_ops.training.trials import Trials, folds_of

    tokens, settings = context.output("tokenize"), context.settings
    rows = Rows(TokenArrays.open(tokens, "train"), TokenArrays.open(tokens, "validation"), meta.pad_id, len(meta.labels))

    def prepare(choices: Mapping[str, Any], count: int) -> tuple[Any, Recipe]:
        changed = resolve(overlay(settings.model_dump(mode="json"), choices))
        recipe = Recipe.of(changed.train.model_dump(), rows=count, seed=settings.seed, steps=settings.tune.steps)
        spec = ModelSpec.of(changed.model.model_dump(), meta, context.origin)
        if recipe.initial == "odds" and settings.tune.folds > 1:
            raise UsageError(
                "train.initial = odds counts rows that tune.folds holds out; set tune.folds to 1, or train.initial to random"
            )
        module = start(build(spec, settings.seed), recipe.initial, spec, rows.train)
        return module, recipe.model_copy(update={"report": rungs})

    return Trials(context.scratch / "trials", folds_of(rows, settings.tune.folds), prepare)


def _cost(context: Context, meta: TokenMeta) -> Callable[[Mapping[str, Any]], float]:
    """Relative cost of a step: the parameters of the model that the choices make. Counted, not timed, so that a study repeats itself."""
    tree = context.settings.model_dump(mode="json")

    def cost(choices: Mapping[str, Any]) -> float:
        if not any(key.startswith("model.") for key in choices):
            return 1.0
        model = resolve(overlay(tree, choices)).model.model_dump()
        return float(shape_of(ModelSpec.of(model, meta, context.origin)).parameters)

    return cost


def _earlier(context: Context) -> tuple[Any, ...]:
    """The studies of inputs/history.json as the strategy takes them."""
    from autoglm_ops.tuning.transfer import Earlier, Told

    return tuple(
        Earlier(
            name=past.name,
            steps=past.steps,
            trials=tuple(
                Told(choices=trial.params, curve=tuple((step, 1.0 - score) for step, score in trial.curve))
                for trial in past.trials
                if trial.curve
            ),
        )
        for past in StudyHistory.read(context.input("history")).studies
        if past.objective == OBJECTIVE
    )


def _remember(context: Context, report: TuningReport) -> None:
    """Keep the study for the next one. Outside the workspace, and no output: what this stage says stays a function of its inputs."""
    if report.trials:
        study = PastStudy(
            name=f"study {context.scratch.name}",
            objective=report.objective,
            steps=context.settings.tune.steps,
            space=report.space,
            data=context.scratch.name,
            trials=report.trials,
        )
        studies.keep(context.home, study)


def _present(settings: Settings, meta: TokenMeta, context: Context, space: Space) -> dict[str, Any]:
    """The present value of each key of the space; a null of the model section is its configuration's own."""
    values = {
        f"{section}.{key}": value for section in ("train", "model") for key, value in settings.model_dump()[section].items()
    }
    own = folders.model(context, settings, meta).overrides
    values |= {f"model.{key}": value for key, value in own.items()}
    return {dimension.key: values[dimension.key] for dimension in space.dimensions}
