"""The study's database: Optuna's RDB storage, SQLite in a folder or PostgreSQL by URL. One process, the coordinator, writes it.

Every look is kept when it is taken, so a killed coordinator loses the look it was in and nothing else. A trial that was created and never
scored (its process died before the first look) is found when the study is opened again, marked as failed and dead, and tried anew.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.exc import DatabaseError, OperationalError

from autoglm_ops.contracts.record import digest_of
from autoglm_ops.errors import Refused, Tampered, TryAgain, UsageError
from autoglm_ops.tuning.moves import Seen
from autoglm_ops.tuning.rounds import Look, Round
from autoglm_ops.tuning.samplers import suggest
from autoglm_ops.tuning.space import Space, changes

log = logging.getLogger(__name__)

LOOK = "look:"
ROUND = "round"
DEAD = "dead"
FILE = "study.db"
_STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}


class Database:
    """The trials of one study, numbered without gaps whatever died between them, read once and kept in step with what is written.

    `order`: (trial, step) of every look, as they were taken. `states`: running, complete, pruned or failed.

    Raises Tampered when the SQLite file is torn, TryAgain when a server is away, Refused when the study was begun with another space.
    """

    def __init__(self, folder: Path, url: str | None, name: str, space: Space, default: Mapping[str, Any]) -> None:
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._space = space
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / FILE
        self._study = _open(url or f"sqlite:///{path}", name, path if url is None else None)
        _same_space(self._study, space, default)
        alive = self._alive()
        self._ids = [trial._trial_id for trial in alive]
        self.states = [_STATES.get(trial.state, "running") for trial in alive]
        self._choices = [dict(trial.user_attrs["choices"]) for trial in alive]
        self._scores = [dict(sorted(_scored(trial).items())) for trial in alive]
        looks = [
            (trial.user_attrs[f"{LOOK}{step}"], number, step) for number, trial in enumerate(alive) for step in _scored(trial)
        ]
        self.order = [(number, step) for _, number, step in sorted(looks)]

    def __len__(self) -> int:
        return len(self._ids)

    def create(self, choices: Mapping[str, Any]) -> int:
        """Keep a new trial; returns its number."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # present settings may lie outside the space, and are tried all the same
            self._study.enqueue_trial(dict(choices), user_attrs={"choices": dict(choices)})
            trial = self._study.ask()
            suggest(trial, self._space)
        self._ids.append(trial._trial_id)
        self.states.append("running")
        self._choices.append(dict(choices))
        self._scores.append({})
        return len(self._ids) - 1

    def add(self, number: int, step: int, score: float) -> None:
        """Keep a look. Its place in the order comes first: a look counts once both are there."""
        trial = self._trial(number)
        trial.set_user_attr(f"{LOOK}{step}", len(self.order))
        trial.report(score, step)
        self._scores[number][step] = score
        self.order.append((number, step))

    def close(self, number: int, state: str) -> None:
        """End a trial: complete (its value is its best score), pruned or failed. What has ended stays as it is."""
        if self.states[number] != "running":
            return
        if state == "complete":
            self._study.tell(self._trial(number), max(self._scores[number].values()))
        else:
            self._study.tell(self._trial(number), state={"pruned": TrialState.PRUNED, "failed": TrialState.FAIL}[state])
        self.states[number] = state

    def begin(self, asked: Round) -> None:
        """Keep a round before anything of it is done, so that whoever opens the study next takes the same looks."""
        looks = [look.model_dump(mode="json") for look in asked.looks]
        self._study.set_user_attr(ROUND, {"looks": looks, "pruned": list(asked.pruned)})
        self.give_up(asked)

    def give_up(self, asked: Round) -> None:
        for number in asked.pruned:
            self.close(number, "pruned")

    def round(self) -> Round | None:
        """The round that was begun last; its looks as far as they are not taken yet."""
        kept = self._study.user_attrs.get(ROUND)
        if kept is None:
            return None
        looks = [Look.model_validate(look) for look in kept["looks"]]
        return Round(tuple(look for look in looks if not self._taken(look)), tuple(kept["pruned"]))

    def _taken(self, look: Look) -> bool:
        return look.number < len(self) and (look.to in self._scores[look.number] or self.states[look.number] != "running")

    def choices(self, number: int) -> dict[str, Any]:
        return dict(self._choices[number])

    def scores(self, number: int) -> dict[int, float]:
        """Step to score, in order."""
        return dict(self._scores[number])

    def seen(self, number: int) -> Seen:
        """A trial as strategies see it: a loss is 1 - score, and what could not be trained is infinitely bad."""
        curve = tuple((step, 1.0 - score) for step, score in self._scores[number].items())
        state = self.states[number]
        if state == "failed":
            curve = (*curve, (curve[-1][0] + 1 if curve else 1, math.inf))
        shown = state if state in {"pruned", "failed"} else "open"
        return Seen.model_validate({"number": number, "choices": self._choices[number], "curve": curve, "state": shown})

    def _alive(self) -> list[FrozenTrial]:
        """Trials that count. What died before its first look is marked, and left to be tried anew."""
        alive = []
        for trial in self._study.get_trials(deepcopy=False):
            if trial.user_attrs.get(DEAD):
                continue
            if _scored(trial) or trial.state.is_finished():
                alive.append(trial)
                continue
            log.warning("trial %d was created and never scored: its process died; it is tried anew", trial.number)
            if trial.state == TrialState.WAITING:
                trial = self._study.get_trials(deepcopy=False)[self._study.ask().number]
            self._mark_dead(trial)
        return alive

    def _mark_dead(self, trial: FrozenTrial) -> None:
        live = optuna.trial.Trial(self._study, trial._trial_id)
        live.set_user_attr(DEAD, True)
        self._study.tell(live, state=TrialState.FAIL)

    def _trial(self, number: int) -> optuna.Trial:
        return optuna.trial.Trial(self._study, self._ids[number])


def _scored(trial: FrozenTrial) -> dict[int, float]:
    """The looks that were kept whole."""
    return {step: score for step, score in trial.intermediate_values.items() if f"{LOOK}{step}" in trial.user_attrs}


def _open(url: str, name: str, path: Path | None) -> optuna.Study:
    try:
        storage = RDBStorage(url)
        study = optuna.create_study(storage=storage, study_name=name, direction="maximize", load_if_exists=True)
        study.get_trials(deepcopy=False)
    except ImportError as error:
        raise UsageError(
            "tracking.studies names a database whose driver is not here; install the extra tune, or that driver"
        ) from error
    except OperationalError as error:
        if path is None:
            raise TryAgain(f"the study's database server does not answer: {_first_line(error)}") from error
        raise _torn(path, error) from error
    except (DatabaseError, RuntimeError, AssertionError, KeyError) as error:
        if path is None:
            raise Refused(f"the study's database cannot be used: {_first_line(error)}") from error
        raise _torn(path, error) from error
    return study


def _torn(path: Path, error: Exception) -> Tampered:
    return Tampered(
        f"study-torn: {path.name} is no readable study ({_first_line(error)}); it is left as it is. Move it away to begin the study again"
    )


def _first_line(error: Exception) -> str:
    return str(error).split("\n", maxsplit=1)[0][:200] or type(error).__name__


def _same_space(study: optuna.Study, space: Space, default: Mapping[str, Any]) -> None:
    begun = study.user_attrs.get("space")
    if begun is None:
        study.set_user_attr("default", digest_of(dict(default)))
        study.set_user_attr("space", space.as_settings())
    elif begun != space.as_settings():
        lines = "; ".join(changes(begun, space.as_settings()))
        raise Refused(
            f"space-changed: the study was begun with another space ({lines}); its trials are kept. Begin a study of another name"
        )
    elif study.user_attrs.get("default") != digest_of(dict(default)):
        raise Refused(
            "default-changed: the study was begun with other present settings; its trials are kept. Begin a study of another name"
        )
