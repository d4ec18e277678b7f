"""The learning-curve tables of bench_tune.py, and the simulated clock that any strategy runs on: a look costs its new steps."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.tuning.moves import Prune, Seen, Start, Stop, Strategy, View
from autoglm_ops.tuning.pool import Pool
from autoglm_ops.tuning.space import Dimension, Space
from autoglm_ops.tuning.transfer import Earlier, Told

Array = NDArray[np.float64]
DRAWS, DRAWN = 500, 100


@dataclass(frozen=True)
class Table:
    """One task: `loss` [configurations, steps + 1], what is no number as infinity; `target`: see the bench's page."""

    name: str
    choices: list[dict[str, Any]]
    loss: Array
    target: float

    @property
    def steps(self) -> int:
        return self.loss.shape[1] - 1


@dataclass(frozen=True)
class Draw:
    """Random halves of the configurations: those to search, and those that history knows. The first hold one that reaches the target."""

    search: NDArray[np.int64]
    known: NDArray[np.int64]


@dataclass(frozen=True)
class Reached:
    """Steps spent until a look at the target or below it; `found` False when the strategy ended or the cap came first."""

    steps: int
    started: int
    found: bool


def read(folder: Path) -> list[Table]:
    return [_table(path) for path in sorted(folder.glob("*.json.gz"))]


def _table(path: Path) -> Table:
    with gzip.open(path, "rt", encoding="utf-8") as file:
        entries = json.load(file)
    loss = np.array([entry["valid"]["loss"] for entry in entries], dtype=float)
    loss = np.where(np.isfinite(loss), loss, np.inf)
    random = np.random.default_rng(0)
    draws = [loss[random.choice(len(loss), DRAWN, replace=False), -1].min() for _ in range(DRAWS)]
    name = path.name.removesuffix(".json.gz").removeprefix("FixedTextRNNClassification_")
    return Table(name, [_choices(entry["hp"]) for entry in entries], loss, float(np.median(draws)))


def _choices(given: dict[str, float]) -> dict[str, Any]:
    """Momenta as their distance to 1, where they are spread evenly in the logarithm as the others are."""
    return {
        f"one_minus_{key}" if key.startswith("beta") else key: 1 - value if key.startswith("beta") else value
        for key, value in given.items()
    }


def space_of(table: Table) -> Space:
    """Bounds as the configurations lie: all loguniform."""
    keys = sorted(table.choices[0])
    bounds = {key: [choice[key] for choice in table.choices] for key in keys}
    return Space(
        dimensions=tuple(Dimension(key=key, kind="loguniform", low=min(bounds[key]), high=max(bounds[key])) for key in keys)
    )


def draw(table: Table, seed: int) -> Draw:
    random = np.random.default_rng((seed, 77))
    while True:
        order = random.permutation(len(table.loss))
        search, known = order[: len(order) // 2], order[len(order) // 2 :]
        if (table.loss[search].min(1) <= table.target).any():
            return Draw(search, known)


def history(tables: list[Table], but: Table, known: NDArray[np.int64], control: str, seed: int) -> list[Earlier]:
    """The other tasks' curves of the known configurations. control: true, shuffled (curves dealt anew) or inverted (best for worst)."""
    random = np.random.default_rng((seed, 31))
    studies = []
    for table in tables:
        if table is but:
            continue
        loss = table.loss[known]
        if control == "shuffled":
            loss = loss[random.permutation(len(loss))]
        elif control == "inverted":
            order = np.argsort(loss[:, -1], kind="stable")
            turned = np.empty_like(loss)
            turned[order] = loss[order[::-1]]
            loss = turned
        trials = tuple(
            Told.model_construct(
                choices=table.choices[row], curve=tuple((step, float(one[step])) for step in range(1, table.steps + 1))
            )
            for row, one in zip(known, loss, strict=True)
        )
        studies.append(Earlier.model_construct(name=table.name, steps=table.steps, trials=trials))
    return studies


def pool_of(table: Table, drawn: Draw, space: Space) -> Pool:
    return Pool(space, [table.choices[row] for row in drawn.search])


class Clock:
    """Runs a strategy on a table. A proposal off the table is taken for the nearest configuration that was not tried."""

    def __init__(self, table: Table, drawn: Draw, pool: Pool, cap: int) -> None:
        self._loss, self._target, self._steps = table.loss[drawn.search], table.target, table.steps
        self._pool, self._features, self._cap = pool, pool.features[: pool.offered], cap
        self._trials = list[Seen]()
        self._rows = list[int]()
        self._looks = list[tuple[int, int]]()
        self.spent = 0

    def run(self, strategy: Strategy) -> Reached:
        while self.spent < self._cap:
            view = View.model_construct(
                steps=self._steps, budget=len(self._loss), left=None, trials=tuple(self._trials), looks=tuple(self._looks)
            )
            move = strategy.next(view)
            if isinstance(move, Stop):
                return Reached(self.spent, len(self._trials), False)
            if isinstance(move, Prune):
                self._trials[move.trial] = self._trials[move.trial].model_copy(update={"state": "pruned"})
                continue
            number, to = (self._start(move.choices), move.to) if isinstance(move, Start) else (move.trial, move.to)
            hit = self._look(number, to)
            if hit is not None:
                return Reached(self.spent, len(self._trials), True)
        return Reached(self.spent, len(self._trials), False)

    @property
    def looks(self) -> int:
        return len(self._looks)

    def told(self, name: str) -> Earlier:
        """What the strategy saw, as a study that later ones hear of."""
        trials = tuple(Told.model_construct(choices=trial.choices, curve=trial.curve) for trial in self._trials)
        return Earlier.model_construct(name=name, steps=self._steps, trials=trials)

    def _start(self, choices: dict[str, Any]) -> int:
        wanted = np.array(self._pool.space.features(choices))
        gaps = ((self._features - wanted) ** 2).sum(1)
        gaps[self._rows] = np.inf
        row = int(np.argmin(gaps))
        self._rows.append(row)
        self._trials.append(
            Seen.model_construct(number=len(self._trials), choices=self._pool.choices[row], curve=(), state="open")
        )
        return len(self._trials) - 1

    def _look(self, number: int, to: int) -> int | None:
        trial, losses = self._trials[number], self._loss[self._rows[number]]
        hit = np.flatnonzero(losses[trial.step + 1 : to + 1] <= self._target)
        self.spent += int(hit[0]) + 1 if len(hit) else to - trial.step
        curve = (*trial.curve, (to, float(losses[to])))
        self._trials[number] = Seen.model_construct(number=number, choices=trial.choices, curve=curve, state="open")
        self._looks.append((number, to))
        return int(hit[0]) if len(hit) else None


Make = Callable[[Table, Draw, Pool, int], Strategy]
