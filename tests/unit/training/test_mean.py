"""What is published is the mean of the weights of the last steps: exactly, after a kill too, and scored as what it is."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.settings import Settings
from autoglm_ops.training import checkpoint, mean
from autoglm_ops.training.callbacks.base import AfterValidation, Callback
from autoglm_ops.training.callbacks.checkpoints import Checkpoints
from autoglm_ops.training.models import ModelSpec, build
from autoglm_ops.training.plain import PlainEngine
from autoglm_ops.training.progress import Progress, Weights
from autoglm_ops.training.recipe import EARLY, LEAST, SNAPSHOTS, Recipe
from autoglm_ops.training.rows import MacroF1, Rows, fit

TRAIN = {**Settings().train.model_dump(), "batch_size": 20, "learning_rate": 0.01, "evaluations": 4, "average": 0.5}


class Killed(Exception):
    pass


class Watch(Callback):
    """Keeps a copy of the weights after each step; may stop the run, or break it off after a checkpoint."""

    def __init__(self, engine: PlainEngine, *, stop: int = 0, die: int = 0, root: Path | None = None) -> None:
        self.seen: dict[int, Weights] = {}
        self._engine, self._stop, self._die, self._root = engine, stop, die, root

    def on_step(self, progress: Progress) -> None:
        self.seen[progress.step] = self._engine.weights()
        if progress.step == self._stop:
            progress.stop = "asked to"
        if progress.step == self._die and self._root is not None:
            checkpoint.save(self._root, "run", self._engine, progress)
            raise Killed


def make(arrays: dict[str, TokenArrays], spec: ModelSpec, **changes: object) -> tuple[PlainEngine, Rows, Recipe]:
    torch.set_num_threads(1)
    recipe = Recipe.of({**TRAIN, **changes}, rows=len(arrays["train"]), seed=3, steps=20)
    rows = Rows(arrays["train"], arrays["validation"], spec.pad_id, len(spec.labels))
    return PlainEngine(build(spec, 3), recipe), rows, recipe


def plain_mean(seen: list[Weights]) -> Weights:
    return {name: torch.stack([one[name].double() for one in seen]).mean(0) for name in seen[0]}


@given(steps=st.integers(1, 5000), average=st.floats(0, 1))
def test_the_snapshots_end_with_the_last_step_and_are_few(steps: int, average: float) -> None:
    train = {**TRAIN, "average": average}
    marks = Recipe.of(train, rows=100, seed=0, steps=steps).averaged
    assert list(marks) == sorted(set(marks))
    assert len(marks) == min(SNAPSHOTS, round(average * steps))
    assert not marks or (marks[-1] == steps and marks[0] > steps - round(average * steps) - 1)


def test_the_mean_of_the_last_half_is_kept_and_scored(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    engine, rows, recipe = make(arrays, spec)
    watch = Watch(engine)
    found = fit(engine, rows, recipe, callbacks=[watch])
    expected = plain_mean([watch.seen[step] for step in range(11, 21)])
    for name, tensor in found.best.items():
        torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-7)
        torch.testing.assert_close(engine.weights()[name], tensor, rtol=0, atol=0)
    assert found.validation[-1] == (20, round(MacroF1(rows).score(engine, 20), 6)) == (found.best_step, found.best_score)
    assert len(found.validation) == 4


def test_without_it_the_best_evaluation_is_kept(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    engine, rows, recipe = make(arrays, spec, average=0.0)
    watch = Watch(engine)
    found = fit(engine, rows, recipe, callbacks=[watch])
    assert all(torch.equal(found.best[name], tensor) for name, tensor in watch.seen[found.best_step].items())


@pytest.mark.parametrize("die", [7, 9, 11, 16])
def test_a_killed_run_has_the_mean_of_the_unbroken_one(
    arrays: dict[str, TokenArrays], spec: ModelSpec, tmp_path: Path, die: int
) -> None:
    unbroken = fit(*make(arrays, spec))
    engine, rows, recipe = make(arrays, spec)
    with pytest.raises(Killed):
        fit(engine, rows, recipe, callbacks=[Watch(engine, die=die, root=tmp_path)])
    engine, rows, recipe = make(arrays, spec)
    kept = checkpoint.newest(tmp_path, "run")
    assert kept is not None
    progress, weights, state = kept
    engine.restore(weights, state)
    again = fit(engine, rows, recipe, progress=progress)
    assert (again.validation, again.best_step) == (unbroken.validation, unbroken.best_step)
    assert all(torch.equal(again.best[name], tensor) for name, tensor in unbroken.best.items())


def test_a_run_that_is_stopped_keeps_what_it_has(arrays: dict[str, TokenArrays], spec: ModelSpec, tmp_path: Path) -> None:
    engine, rows, recipe = make(arrays, spec)
    watch = Watch(engine, stop=13)
    late = fit(engine, rows, recipe, callbacks=[watch, Checkpoints(tmp_path, "run", engine)])
    expected = plain_mean([watch.seen[step] for step in (11, 12, 13)])
    assert late.validation[-1] == (13, round(MacroF1(rows).score(engine, 13), 6)) == (late.best_step, late.best_score)
    kept = checkpoint.newest(tmp_path, "run")
    assert kept is not None and kept[0].step in (5, 10)  # none of the mean; a slow disk leaves 10 out
    assert all(torch.allclose(late.best[name].double(), tensor, atol=1e-6) for name, tensor in expected.items())
    engine, rows, recipe = make(arrays, spec)
    watch = Watch(engine, stop=7)
    early = fit(engine, rows, recipe, callbacks=[watch])
    assert all(torch.equal(early.best[name], tensor) for name, tensor in watch.seen[early.best_step].items())


def test_a_trial_that_keeps_nothing_goes_on_from_its_own_weights(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    engine, rows, recipe = make(arrays, spec)
    watch = Watch(engine)
    found = fit(engine, rows, recipe, callbacks=[watch, AfterValidation(lambda _: None)], keep=False)
    assert found.best == {}
    assert all(torch.equal(watch.seen[20][name], tensor) for name, tensor in engine.weights().items())


def test_whole_numbers_are_the_newest_and_the_mean_before_stays() -> None:
    first, second = ({"count": torch.tensor(value), "weight": torch.tensor(float(value))} for value in (2, 4))
    found = mean.taken(mean.taken({}, first, 1), second, 2)
    assert found == {"count": torch.tensor(4), "weight": torch.tensor(3.0)}
    assert first == {"count": torch.tensor(2), "weight": torch.tensor(2.0)}


def test_listeners_hear_the_weights_as_they_were_and_at_last_the_mean(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    engine, rows, recipe = make(arrays, spec)
    heard: list[tuple[int, float, bool]] = []
    listener = AfterValidation(lambda now: heard.append((*now.validation[-1], now.averaged)))
    found = fit(engine, rows, recipe, callbacks=[listener])
    assert [(step, averaged) for step, _, averaged in heard] == [(5, False), (10, False), (15, False), (20, True)]
    assert [(step, value) for step, value, _ in heard] == found.validation
    raw = fit(*make(arrays, spec, average=0.0))
    assert raw.validation[:3] == found.validation[:3]


def test_what_is_left_to_the_model_begins_late_for_a_new_one_and_is_nothing_for_one_with_weights() -> None:
    left = {**TRAIN, "average": None}
    assert Recipe.of(left, rows=100, seed=0).average == LEAST
    assert Recipe.of(left, rows=100, seed=0, steps=3 * EARLY).averaged[0] in range(EARLY, EARLY + 3 * EARLY // SNAPSHOTS + 1)
    assert Recipe.of(left, rows=100, seed=0, pretrained=True).averaged == ()
    assert Recipe.of(TRAIN | {"average": 0.3}, rows=100, seed=0, pretrained=True).average == 0.3


@pytest.mark.parametrize("average", [-0.1, 1.5, float("nan"), "half"])
def test_a_share_that_is_none_is_refused(average: object) -> None:
    with pytest.raises(ValidationError, match=r"train.average"):
        Settings.model_validate({"train": {"average": average}})
