"""Trials of a study, trained piece by piece in this process: paused at a step, continued from there bit for bit.

They are compared by the weights they have at a step, never by a mean of weights (`mean`): a trial of a hundred steps has hardly begun
where its averaging would, and a mean cannot be gone on from.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.contracts.record import digest_of
from autoglm_ops.training import checkpoint
from autoglm_ops.training.plain import PlainEngine
from autoglm_ops.training.progress import Progress
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.rows import Rows, fit, score

Prepare = Callable[[Mapping[str, Any], int], tuple[Any, Recipe]]
"""(choices, training rows) → a fresh module and the recipe, whose `report` are the steps a trial may be paused at."""


@dataclass
class _Live:
    """One fold of a trial, in memory."""

    engine: PlainEngine
    recipe: Recipe
    progress: Progress
    key: str


class Trials:
    """Keeps one trial in memory; the others lie in `root` as checkpoints, written when a trial gives way to another.

    `folds`: the data of each model of a trial, whose scores are averaged. `measured`: by trial, when `timed`, its latency.
    """

    def __init__(self, root: Path, folds: Sequence[Rows], prepare: Prepare, *, timed: bool = False) -> None:
        self.measured: dict[str, dict[str, float]] = {}
        self._timed = timed
        self._root, self._folds, self._prepare = root, tuple(folds), prepare
        self._number = -1
        self._live = list[_Live]()

    def __call__(self, number: int, choices: Mapping[str, Any], since: int, to: int) -> float:
        """Train to step `to` and return the mean score there. Raises Diverged, and what the model's settings raise."""
        if number != self._number:
            self.pause()
            self._number = -1
            self._live = [self._opened(number, fold, choices) for fold in range(len(self._folds))]
            self._number = number
        scores = [self._to(live, rows, to) for live, rows in zip(self._live, self._folds, strict=True)]
        if to >= self._live[0].recipe.steps:
            if self._timed:
                self.measured[str(number)] = {"latency_ms": _latency(self._live[0].engine, self._folds[0])}
            self._drop(number)
        return round(float(np.mean(scores)), 6)

    def _to(self, live: _Live, rows: Rows, to: int) -> float:
        progress = live.progress

        def pause(now: Progress) -> None:
            now.stop = "paused" if now.step >= to else ""

        if progress.step < to:
            progress.stop = ""
            fit(live.engine, rows, live.recipe, listeners=[pause], progress=progress, keep=False)
        return dict(progress.validation)[to]

    def _opened(self, number: int, fold: int, choices: Mapping[str, Any]) -> _Live:
        module, recipe = self._prepare(choices, len(self._folds[fold].train))
        live = _Live(PlainEngine(module, recipe), recipe, Progress(), _key(recipe, choices))
        found = checkpoint.newest(self._place(number, fold), live.key)
        if found is not None:
            live.progress, weights, state = found
            live.engine.restore(weights, state)
        return live

    def pause(self) -> None:
        """Leave the trial in memory as a checkpoint, for whoever goes on with it."""
        for fold, live in enumerate(self._live):
            if 0 < live.progress.step < live.recipe.steps:
                checkpoint.save(self._place(self._number, fold), live.key, live.engine, live.progress)

    def _drop(self, number: int) -> None:
        shutil.rmtree(self._root / f"trial-{number}", ignore_errors=True)

    def _place(self, number: int, fold: int) -> Path:
        return self._root / f"trial-{number}" / f"fold-{fold}"


def _latency(engine: PlainEngine, rows: Rows) -> float:
    """Milliseconds for one row, the median of ten single rows after one that warms up."""
    count = min(11, len(rows.validation))
    taken = []
    for row in range(count):
        part = rows.validation.take(np.array([row]))
        began = time.perf_counter()
        score(engine, part, rows.pad_id, rows.labels)
        taken.append((time.perf_counter() - began) * 1e3)
    return round(float(np.median(taken[1:] or taken)), 3)


def folds_of(rows: Rows, count: int) -> tuple[Rows, ...]:
    """`count` ways to learn from all but a part of the training rows and be scored on that part; 1 leaves rows as they are."""
    if count == 1:
        return (rows,)
    places = np.arange(len(rows.train))
    return tuple(
        Rows(_part(rows.train, places % count != fold), _part(rows.train, places % count == fold), rows.pad_id, rows.labels)
        for fold in range(count)
    )


def _part(arrays: TokenArrays, chosen: np.ndarray[Any, Any]) -> TokenArrays:
    return arrays.take(np.flatnonzero(chosen))


def _key(recipe: Recipe, choices: Mapping[str, Any]) -> str:
    return digest_of({"recipe": recipe.model_dump(mode="json"), "choices": dict(choices)})
