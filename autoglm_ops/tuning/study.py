"""One study in one warm process: the strategy decides, the trainer trains, the database keeps.

The same seed and space give the same trials and values on every run of a machine: strategies are pure, the budget that shapes a study is
counted in trials and steps, and the only look at a clock is the hard stop in seconds and money, which fails the study and never bends it.
A killed study goes on where it was: every look it took is in the database, and a trainer continues a trial from its last checkpoint.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.contracts.training import Trial, TuningReport
from autoglm_ops.errors import BudgetSpent, Refused, UsageError
from autoglm_ops.tuning.database import Database
from autoglm_ops.tuning.moves import Strategy, View
from autoglm_ops.tuning.rounds import Look, ask
from autoglm_ops.tuning.space import Space

log = logging.getLogger(__name__)

Choices = dict[str, Any]


class Trainer(Protocol):
    """What trains a trial."""

    def __call__(self, number: int, choices: Choices, since: int, to: int) -> float:
        """Train trial `number` from step `since` on to step `to`; returns its score there, more is better.

        Asked again for what was already trained, it answers the same. Raises Refused when the choices cannot be trained.
        """
        ...


class Budget(Record):
    """What a study may take. trials: that may be started. steps: of one whole training. total: steps of all trials, None for no bound.

    parallel: looks of a round, which may be taken at once; a study of another number of them is another study.
    seconds of training, of all trials together whoever trains them, and cost at `hourly` money an hour of it, are the hard stop of an
    attempt. seed: of the strategy. context: what else the scores depend on, which names the study.
    """

    trials: int
    steps: int
    total: int | None = None
    parallel: int = 1
    seconds: float
    cost: float | None = None
    hourly: float = 0.0
    seed: int
    context: str

    @property
    def name(self) -> str:
        return digest_of({"seed": self.seed, "context": self.context})

    def check(self, age: float, look: Look) -> None:
        """The hard stop: `age` seconds were trained when the study is at `look`. Raises BudgetSpent."""
        where = f"in trial {look.number + 1} of {self.trials} at step {look.to}"
        together = " of all trials together" if self.parallel > 1 else ""
        spent = age / 3600 * self.hourly
        kept = "Looks that were taken are kept for a next attempt with the same settings; with others a new study begins"
        if age > self.seconds:
            raise BudgetSpent(
                f"budget-spent: tuning took {age:.0f} s{together} and tune.seconds is {self.seconds:g}, {where}; raise tune.seconds, or lower "
                f"tune.trials or tune.steps. {kept}"
            )
        if self.cost is not None and spent > self.cost:
            raise BudgetSpent(
                f"budget-spent: tuning cost {spent:.2f} and tune.budget.cost is {self.cost:g}, {where}; raise it, or lower tune.trials "
                f"or tune.steps. {kept}"
            )


class Place(Record):
    """Where the study is kept: a folder for SQLite, or the URL of a PostgreSQL server."""

    folder: Path
    url: str | None = None


def run(
    session: Session,
    trainer: Trainer,
    budget: Budget,
    clock: Callable[[], float] = time.monotonic,
    fetch: Callable[[Sequence[Look]], None] | None = None,
    reported: Callable[[], float] = float,
) -> TuningReport:
    """Run or continue the study. `fetch` has a round's looks taken elsewhere, at once, before `trainer` is asked for each; the time that
    takes, in queues too, is no time of this process. What counts of it is `reported`: the seconds that looks taken elsewhere say they took.

    Raises BudgetSpent at the hard stop, Refused when no trial could be trained.
    """
    started = clock()
    while looks := session.pending():
        if fetch is not None:
            budget.check(clock() - started + reported(), looks[0])  # whoever fetched before may have died over what came back
            asked = clock()
            fetch(looks)
            started += clock() - asked
        elsewhere = reported()
        for look in looks:
            session.take(look, trainer)
            budget.check(clock() - started + elsewhere, look)
    return session.report()


class Session:
    """The study, open: what is to be looked at next, and what became of it. One process at a time, the coordinator, holds one.

    Trial 0 is `default`, the present settings, so the best is never worse than they are. Raises UsageError when the present value of a
    choice is not among its options, and what `Database` raises.
    """

    def __init__(self, space: Space, default: Mapping[str, Any], strategy: Strategy, budget: Budget, place: Place) -> None:
        checked(space, default)
        self._space, self._strategy, self._budget, self._why = space, strategy, budget, ""
        self._database = Database(place.folder, place.url, budget.name, space, default)
        if len(self._database):
            log.info("continuing the study: %d trials were begun", len(self._database))

    def pending(self) -> tuple[Look, ...]:
        """The looks of the present round that are not taken yet, in their order; none when the study is over."""
        database, size = self._database, self._budget.parallel
        begun = database.round() if size > 1 else None
        if begun is not None:
            database.give_up(begun)
            if begun.looks:
                return begun.looks
        while not (asked := ask(self._strategy, view(database, self._budget), size)).looks:
            if not asked.pruned:
                self._why = asked.why
                return ()
            database.give_up(asked)
        if size > 1:
            database.begin(asked)
        else:
            database.give_up(asked)
        return asked.looks

    def take(self, look: Look, trainer: Trainer) -> None:
        """Have the look taken by `trainer`, and keep what came of it. Looks of a round are taken in their order."""
        if look.number == len(self._database):
            self._database.create(look.choices)
        _look(self._database, look, trainer)

    def report(self) -> TuningReport:
        """Give every trial its end, and say what the study found. Raises Refused when no trial could be trained."""
        _settle(self._database, self._budget.steps)
        log.info("the study is done: %s", self._why)
        return _report(self._database, self._space)


def view(database: Database, budget: Budget) -> View:
    """What the strategy sees."""
    trials = [database.seen(number) for number in range(len(database))]
    left = None if budget.total is None else budget.total - sum(trial.step for trial in trials)
    return View(steps=budget.steps, budget=budget.trials, left=left, trials=tuple(trials), looks=tuple(database.order))


def checked(space: Space, default: Mapping[str, Any]) -> Choices:
    """The present settings as a configuration of the space. Raises UsageError when a choice leaves one out."""
    for dimension in space.dimensions:
        value = default[dimension.key]
        if dimension.kind == "choice" and dimension.when is None and not dimension.contains(value):
            raise UsageError(
                f"tune.space.{dimension.key}: the present value {value!r} is not among the choices {list(dimension.options)!r}, and the "
                "first trial is the present settings; add it"
            )
    return {dimension.key: default[dimension.key] for dimension in space.dimensions if dimension.active(default)}


def _look(database: Database, look: Look, trainer: Trainer) -> None:
    try:
        score = trainer(look.number, dict(look.choices), look.since, look.to)
    except BudgetSpent:
        raise
    except Refused as error:
        log.warning("trial %d failed: %s", look.number, error)
        database.close(look.number, "failed")
        return
    database.add(look.number, look.to, score)
    log.info("trial %d at step %d: %s → %s", look.number, look.to, look.choices, score)


def _settle(database: Database, steps: int) -> None:
    """Give every trial its end: trained whole, or paused for good."""
    for number in range(len(database)):
        database.close(number, "complete" if steps in database.scores(number) else "pruned")


def _report(database: Database, space: Space) -> TuningReport:
    trials = tuple(_trial(database, number) for number in range(len(database)))
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    if not complete:
        raise Refused(
            f"none of {len(trials)} trials could be trained; look at the log, and lower the bounds of train.learning_rate"
        )
    best = max(complete, key=lambda trial: (trial.value or 0.0, -trial.number))
    return TuningReport(
        verdict="tuned",
        objective="validation macro-F1",
        direction="maximize",
        space=space.as_settings(),
        trials=trials,
        best=best.params,
        best_value=best.value,
        reasons=(f"{_beaten(best)}: {best.value}, against {trials[0].value}", _counted(trials)),
    )


def _beaten(best: Trial) -> str:
    if best.number == 0:
        return "the present settings were not beaten"
    return f"trial {best.number} beats the present settings, trial 0"


def _counted(trials: Sequence[Trial]) -> str:
    states = ("complete", "pruned", "failed")
    return f"{len(trials)} trials: " + ", ".join(f"{sum(trial.state == state for trial in trials)} {state}" for state in states)


def _trial(database: Database, number: int) -> Trial:
    state, scores = database.states[number], database.scores(number)
    return Trial.model_validate(
        {
            "number": number,
            "params": database.choices(number),
            "state": state,
            "value": max(scores.values()) if state == "complete" else None,
            "curve": tuple(scores.items()),
        }
    )
