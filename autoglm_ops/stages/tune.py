"""Stage `tune`: the search space, as production patched it → report.json, whose best settings `train` takes.

Trials train in this process; those of rounds (`tune.parallel` > 1) where `cluster` says.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from autoglm_ops.contracts.arrays import TokenArrays, TokenMeta
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.record import digest_of
from autoglm_ops.contracts.training import ParallelPlan, PastStudy, StudyHistory, TuningReport
from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.feedback.levers import SPACE, apply
from autoglm_ops.settings import Settings, load, resolve
from autoglm_ops.stages import folders, sizes, studies
from autoglm_ops.stages.base import Context, Outcome
from autoglm_ops.stages.desk import Attended, Desk
from autoglm_ops.training.models import ModelSpec, build, shape_of
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.settings import overlay
from autoglm_ops.tuning import room
from autoglm_ops.tuning.front import settle
from autoglm_ops.tuning.moves import PAUSING, SIZE
from autoglm_ops.tuning.space import Space, changes, parse_space, patched

if TYPE_CHECKING:
    from autoglm_ops.training.trials import Trials
    from autoglm_ops.tuning.moves import Strategy
    from autoglm_ops.tuning.study import Budget, Session

OBJECTIVE = "validation macro-F1"


def run(context: Context) -> Outcome:
    """Writes report.json (TuningReport). Raises UsageError (a bad space), BudgetSpent (the hard stop) or Refused."""
    started = time.monotonic()
    space, reasons, why_not = searched(context)
    trained: dict[str, Any] = {}
    if why_not:
        report = _off(space, why_not)
    else:
        report, trained = _study(ready(context, space))
    report = report.model_copy(update={"reasons": (*reasons, *report.reasons)})
    report.write(context.out / "report.json")
    _remember(context, report)
    shutil.rmtree(context.scratch, ignore_errors=True)
    facts = {"verdict": report.verdict, "trials": len(report.trials), "best_value": report.best_value}
    measured = {"seconds": round(time.monotonic() - started, 3), **({"trials": trained} if trained else {})}
    return Outcome(reasons=report.reasons, facts=facts, measured=measured)


def searched(context: Context) -> tuple[Space, tuple[str, ...], str]:
    """The space as production patched it, what each patch did, and why nothing is searched ("" when something is)."""
    raw, reasons = _patched(context.settings, PatchSet.read(context.input("patches")))
    if not context.settings.tune.enabled:
        fixed = {key: entry for key, entry in raw.items() if "adaptive" not in entry}  # which needs a cut
        return parse_space(fixed), reasons, "tune.enabled is false"
    if sizes.searched(raw):
        raw, cut = sizes.adapted_to(context, raw)
        reasons = (*reasons, *cut)
    space = parse_space(raw)
    if not space.dimensions:
        raise UsageError(
            "tune.space is empty while tune.enabled is true; name what may be tried, for example train.learning_rate: {loguniform: "
            "[1e-3, 1e-2]}, or set tune.enabled to false"
        )
    return space, reasons, ""


def _patched(settings: Settings, patches: PatchSet) -> tuple[dict[str, Any], tuple[str, ...]]:
    """`tune.space` under the run's patches, and what each did. One made for another value than the space has now is left out: the user
    changed params.yaml since, and the user wins."""
    space = settings.tune.space
    applied = apply({f"{SPACE}{key}": value for key, value in space.items()}, patches)
    stale = {refusal.key: refusal.reason for refusal in applied.skipped if refusal.key.startswith(SPACE)}
    raw, reasons = patched(space, applied.standing)
    return raw, (*(f"stale patch of {key} left out: {reason}" for key, reason in stale.items()), *reasons)


def _off(space: Space, why: str) -> TuningReport:
    return TuningReport(
        verdict="off",
        objective=OBJECTIVE,
        direction="maximize",
        space=space.as_settings(),
        reasons=(f"no trials: {why}",),
    )


@dataclass(frozen=True)
class Ready:
    """A study as the settings say, before its database is opened and before torch is imported."""

    context: Context
    space: Space
    default: dict[str, Any]
    strategy: Strategy
    budget: Budget
    desk: Desk

    @property
    def restarts(self) -> int:
        return self.context.settings.recovery.restarts

    def session(self) -> Session:
        """The study, open. One process at a time may have it so."""
        from autoglm_ops.tuning import study

        place = study.Place(folder=self.context.scratch, url=self.context.settings.tracking.studies)
        return study.Session(self.space, self.default, self.strategy, self.budget, place)


def ready(context: Context, space: Space) -> Ready:
    """The study of `space`. Raises UsageError when the present settings do not go with it."""
    from autoglm_ops.tuning import strategies, study

    settings = context.settings
    meta = TokenMeta.read(context.output("tokenize", "meta.json"))
    default = study.checked(space, _present(settings, meta, context, space))
    strategy = strategies.make(
        settings.tune.strategy,
        space,
        rungs_of(settings),
        seed=settings.seed,
        first=(default,),
        earlier=_earlier(context),
        cost=_cost(context, meta),
    )
    budget = budget_of(settings, context.scratch.name)
    return Ready(context, space, default, strategy, budget, Desk(context.scratch / "looks"))


def _study(made: Ready) -> tuple[TuningReport, dict[str, Any]]:
    """Run the study to its end, here or its rounds away; looks that somebody else has taken are not taken again. With what those measured."""
    from autoglm_ops.stages import trials_away
    from autoglm_ops.tuning import study

    lazy = _Lazy(made.context)
    trainer = Attended(made.desk, lazy, made.restarts)
    fetch = partial(trials_away.fetch, made.context, made.desk, made.restarts)
    sent = trials_away.leave(made.context.settings)
    with made.desk.metered():
        report = study.run(made.session(), trainer, made.budget, fetch=fetch if sent else None, reported=made.desk.spent)
    objectives = made.context.settings.tune.objectives
    if len(objectives) > 1:
        done = (trial for trial in report.trials if trial.state == "complete")
        report = settle(report, objectives, {trial.number: sizes.costs(made.context, trial.params) for trial in done})
    heard = getattr(made.strategy, "reasons", ())
    return report.model_copy(update={"reasons": (*report.reasons, *heard)}), {**made.desk.measured(), **lazy.measured}


class _Lazy:
    """A `Trainer` that imports torch when it first has to train: a study whose looks were all taken elsewhere needs none."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._trainer: Trials | None = None

    @property
    def measured(self) -> dict[str, dict[str, float]]:
        """What was measured here, by trial."""
        return self._trainer.measured if self._trainer is not None else {}

    def __call__(self, number: int, choices: dict[str, Any], since: int, to: int) -> float:
        if self._trainer is None:
            self._trainer = trainer_of(self._context)
        return self._trainer(number, choices, since, to)


def budget_of(settings: Settings, name: str) -> Budget:
    """What the study `name` may take."""
    from autoglm_ops.tuning.study import Budget

    tune, asked = settings.tune, settings.tune.budget
    pausing = tune.strategy in PAUSING
    return Budget(
        trials=asked.trials or (SIZE if pausing else tune.trials),
        steps=tune.steps,
        total=asked.steps or (tune.trials * tune.steps if pausing else None),
        parallel=tune.parallel,
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
    whole, later = room.uncut(raw)
    space, budget = parse_space(whole), budget_of(settings, "")
    before = parse_space(room.uncut(settings.tune.space)[0])
    steps = budget.total or budget.trials * budget.steps
    seconds = round(steps * plan.step_seconds, 1) if plan and plan.step_seconds else None
    return {
        "strategy": settings.tune.strategy,
        "version": space.version,
        "space": space.as_settings(),
        "changes": list(changes(before.as_settings(), space.as_settings())),
        "reasons": [*reasons, *later],
        "rungs": list(rungs_of(settings)),
        "trials": budget.trials,
        "steps": steps,
        "seconds": seconds,
        "hard_stop_seconds": budget.seconds,
        "cost": None if seconds is None else round(seconds / 3600 * budget.hourly, 4),
    }


def difference(settings: Settings, other: Path) -> tuple[str, ...]:
    """How the space of `other`, a params.yaml or a study's report.json, becomes that of the settings: its version, and a line a key."""
    if other.suffix == ".json":
        theirs = TuningReport.read(other).space
    else:
        theirs = load(other, environ={}).tune.space
    lines = changes(theirs, settings.tune.space)
    versions = f"version {digest_of(theirs)[:12]} becomes {digest_of(settings.tune.space)[:12]}"
    return (versions, *lines) if lines else ()


def trainer_of(context: Context) -> Trials:
    """Trains with choices laid over the settings."""
    # One thread, read when torch is imported: two on busy cores wait for each other (a trial took 46 CPU seconds instead of 10), and
    # the sums of one thread are the same however many cores a machine has.
    os.environ["OMP_NUM_THREADS"] = "1"
    import torch

    from autoglm_ops.training.initial import start
    from autoglm_ops.training.rows import Rows
    from autoglm_ops.training.trials import Trials, folds_of

    torch.set_num_threads(1)
    tokens, settings = context.output("tokenize"), context.settings
    meta, rungs = TokenMeta.read(context.output("tokenize", "meta.json")), rungs_of(settings)
    rows = Rows(TokenArrays.open(tokens, "train"), TokenArrays.open(tokens, "validation"), meta.pad_id, len(meta.labels))

    fits = sizes.fits(context) if sizes.searched(settings.tune.space) else None

    def prepare(choices: Mapping[str, Any], count: int) -> tuple[Any, Recipe]:
        if fits and (why := fits(choices)):
            raise Refused(f"unfit: {why}")
        changed = resolve(overlay(settings.model_dump(mode="json"), choices))
        recipe = Recipe.of(changed.train.model_dump(), rows=count, seed=settings.seed, steps=settings.tune.steps)
        spec = ModelSpec.of(changed.model.model_dump(), meta, context.origin)
        if recipe.initial == "odds" and settings.tune.folds > 1:
            raise UsageError(
                "train.initial = odds counts rows that tune.folds holds out; set tune.folds to 1, or train.initial to random"
            )
        if recipe.teacher and settings.tune.folds > 1:
            raise UsageError(
                "train.teacher learned from rows that tune.folds holds out; set tune.folds to 1, or train.teacher to 0"
            )
        module = start(build(spec, settings.seed), recipe.initial, spec, rows.train)
        return module, recipe.model_copy(update={"report": rungs})

    timed = "latency" in settings.tune.objectives
    return Trials(context.scratch / "trials", folds_of(rows, settings.tune.folds), prepare, timed=timed)


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
        studies.keep_database(context.home, context.scratch)


def _present(settings: Settings, meta: TokenMeta, context: Context, space: Space) -> dict[str, Any]:
    """The present value of each key of the space; a null of the model section is its configuration's own."""
    values = {
        f"{section}.{key}": value for section in ("train", "model") for key, value in settings.model_dump()[section].items()
    }
    own = folders.model(context, settings, meta).overrides
    values |= {f"model.{key}": value for key, value in own.items()}
    return {dimension.key: values[dimension.key] for dimension in space.dimensions}
