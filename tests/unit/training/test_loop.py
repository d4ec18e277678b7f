"""The loop learns, repeats itself bit for bit, stops on NaN, and continues from a checkpoint as if nothing had happened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.errors import UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.training import checkpoint
from autoglm_ops.training.batch import collate
from autoglm_ops.training.loop import Diverged
from autoglm_ops.training.models import ModelSpec, build
from autoglm_ops.training.plain import PlainEngine
from autoglm_ops.training.progress import Progress
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.rows import Rows, _dropped, fit

TRAIN = {**Settings().train.model_dump(), "batch_size": 20, "learning_rate": 0.01, "evaluations": 4, "token_dropout": 0.1}


class Killed(Exception):
    pass


def make(
    arrays: dict[str, TokenArrays], spec: ModelSpec, steps: int = 40, **changes: object
) -> tuple[PlainEngine, Rows, Recipe]:
    torch.set_num_threads(1)
    recipe = Recipe.of({**TRAIN, **changes}, rows=len(arrays["train"]), seed=3, steps=steps)
    return (
        PlainEngine(build(spec, 3), recipe),
        Rows(arrays["train"], arrays["validation"], spec.pad_id, len(spec.labels)),
        recipe,
    )


def same(left: Progress, right: Progress) -> bool:
    told = (left.losses, left.validation, left.best_step, left.tokens) == (
        right.losses,
        right.validation,
        right.best_step,
        right.tokens,
    )
    return told and all(torch.equal(left.best[name], right.best[name]) for name in left.best)


def test_it_learns_and_two_runs_are_bit_identical(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    first, second = (fit(*make(arrays, spec, 120)) for _ in range(2))
    assert first.best_score > 0.9
    assert first.best_score == max(score for _, score in first.validation)
    assert (first.step, first.samples) == (120, 2400)
    assert same(first, second)


def test_a_killed_run_continues_bit_identically(arrays: dict[str, TokenArrays], spec: ModelSpec, tmp_path: Path) -> None:
    unbroken = fit(*make(arrays, spec))
    engine, rows, recipe = make(arrays, spec)

    def keep_then_die(progress: Progress) -> None:
        checkpoint.save(tmp_path, "run", engine, progress)
        if progress.step >= 20:
            raise Killed

    with pytest.raises(Killed):
        fit(engine, rows, recipe, listeners=[keep_then_die])
    engine, rows, recipe = make(arrays, spec)
    found = checkpoint.newest(tmp_path, "run")
    assert found is not None
    progress, weights, state = found
    assert progress.step == 20
    engine.restore(weights, state)
    assert same(fit(engine, rows, recipe, progress=progress), unbroken)


def test_checkpoints_that_do_not_verify_or_belong_elsewhere_are_passed_over(
    arrays: dict[str, TokenArrays], spec: ModelSpec, tmp_path: Path
) -> None:
    engine, rows, recipe = make(arrays, spec, 4)
    fit(engine, rows, recipe, listeners=[lambda now: checkpoint.save(tmp_path, "run", engine, now) and None])
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["step-000000003", "step-000000004"]
    torn = tmp_path / "step-000000004" / "rank-00000.safetensors"
    torn.write_bytes(torn.read_bytes()[:-1])
    found = checkpoint.newest(tmp_path, "run")
    assert found is not None
    assert found[0].step == 3
    assert checkpoint.newest(tmp_path, "another plan") is None


def test_a_rate_that_explodes_stops_with_one_message(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    with pytest.raises(
        Diverged, match=r"diverged: the loss is (nan|inf) at step \d+ of 40 with learning rate .*; lower it"
    ) as caught:
        fit(*make(arrays, spec, learning_rate=1e38, warmup_share=0.0, gradient_clip=1e30))
    assert caught.value.exit_code == 3


def test_accumulation_gives_the_step_of_the_whole_batch(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    whole, rows, recipe = make(arrays, spec, 5, token_dropout=0.0)
    parts, _, _ = make(arrays, spec, 5, token_dropout=0.0)
    parts.accumulation = 4
    first, second = fit(whole, rows, recipe), fit(parts, rows, recipe)
    assert [loss for _, loss in first.losses] == pytest.approx([loss for _, loss in second.losses], abs=1e-4)


def test_the_token_that_is_read_out_is_never_blanked() -> None:
    batch = collate(
        [np.array([5, 6, 7, 2], np.int32), np.array([2], np.int32), np.empty(0, np.int32)], np.zeros(3, np.int64), 0
    )
    blanked = _dropped(batch, 0.99, 0)
    assert blanked.ids[0, 3] == blanked.ids[1, 0] == 2
    assert batch.mask.sum(1).tolist() == [4, 1, 1]
    assert batch.ids.shape == (3, 8)


def test_a_teacher_that_knows_better_than_the_labels_is_learned_from_by_its_share(
    arrays: dict[str, TokenArrays], spec: ModelSpec
) -> None:
    truth = np.asarray(arrays["train"].labels)
    wrong = np.where(np.random.default_rng(1).random(len(truth)) < 0.7, 1 - truth, truth)  # worse than a coin
    taught = replace(arrays["train"], labels=wrong, teacher=np.eye(2, dtype=np.float32)[truth])
    scores = {}
    for share in (0.0, 1.0):
        engine, rows, recipe = make({**arrays, "train": taught}, spec, 60, teacher=share)
        scores[share] = fit(engine, rows, recipe).validation[-1][1]
    assert scores[0.0] < 0.5 and scores[1.0] > 0.9


def test_who_wants_opinions_that_nobody_gave_is_told_whom_to_ask(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    engine, rows, recipe = make(arrays, spec, 2, teacher=0.5)
    with pytest.raises(
        UsageError, match=r"train\.teacher = 0\.5 needs the opinions of a teacher; set tokenize\.teacher to tfidf"
    ):
        fit(engine, rows, recipe)
