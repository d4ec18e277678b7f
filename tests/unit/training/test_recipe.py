"""Schedules, batches and shares are pure functions: what they promise holds for any input."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.errors import BadData
from autoglm_ops.settings import Settings
from autoglm_ops.training.metrics import macro_f1
from autoglm_ops.training.recipe import Recipe, epoch_batches, share

TRAIN = Settings().train.model_dump()


def recipe(**changes: object) -> Recipe:
    return Recipe.of({**TRAIN, **changes}, rows=1000, seed=1)


def test_steps_come_from_epochs_and_are_capped_by_max_steps() -> None:
    assert recipe(epochs=2, batch_size=64).steps == 30
    assert recipe(epochs=2, batch_size=64, max_steps=5).steps == 5
    assert Recipe.of(TRAIN, rows=1000, seed=1, steps=7).steps == 7


@given(steps=st.integers(1, 400), evaluations=st.integers(1, 50))
def test_the_last_step_is_always_scored(steps: int, evaluations: int) -> None:
    marks = Recipe.of({**TRAIN, "evaluations": evaluations}, rows=1000, seed=1, steps=steps).report
    assert marks[-1] == steps
    assert len(marks) == min(evaluations, steps)
    assert marks[0] >= 1


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_the_rate_warms_up_to_the_peak_and_falls_to_zero(schedule: str) -> None:
    plan = Recipe.of({**TRAIN, "schedule": schedule, "warmup_share": 0.1, "learning_rate": 0.5}, rows=1000, seed=1, steps=100)
    rates = [plan.rate(step) for step in range(1, 101)]
    assert rates[:10] == pytest.approx([0.05 * step for step in range(1, 11)])
    assert max(rates) == 0.5
    assert rates[9:] == sorted(rates[9:], reverse=True)
    assert rates[-1] == pytest.approx(0.0)


def test_fewer_rows_than_a_batch_are_refused() -> None:
    with pytest.raises(BadData, match=r"10 training rows are fewer than train.batch_size = 32; lower it"):
        Recipe.of(TRAIN, rows=10, seed=1)


@settings(max_examples=40)
@given(rows=st.integers(1, 700), size=st.integers(1, 64), seed=st.integers(0, 99), epoch=st.integers(0, 5))
def test_an_epoch_is_full_batches_of_distinct_rows(rows: int, size: int, seed: int, epoch: int) -> None:
    lengths = np.random.default_rng(0).integers(1, 99, rows)
    batches = epoch_batches(lengths, size, seed, epoch)
    assert len(batches) == rows // size
    flat = np.concatenate([*batches, np.empty(0, np.int64)])
    assert len(np.unique(flat)) == len(flat) == rows // size * size
    again = epoch_batches(lengths, size, seed, epoch)
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_grouping_by_length_saves_most_padding() -> None:
    lengths = np.random.default_rng(0).integers(1, 128, 6400)

    def padded(batches: list[np.ndarray]) -> int:
        return sum(int(lengths[batch].max()) * len(batch) for batch in batches)

    grouped = epoch_batches(lengths, 64, 0, 0)
    assert padded(grouped) < 1.1 * lengths.sum()
    assert padded(np.split(np.arange(6400), 100)) > 1.8 * lengths.sum()
    assert [int(batch[0]) for batch in grouped] != [int(batch[0]) for batch in epoch_batches(lengths, 64, 0, 1)]


@given(ranks=st.integers(1, 5), accumulation=st.integers(1, 4), micro=st.integers(1, 6))
def test_shares_tile_the_batch(ranks: int, accumulation: int, micro: int) -> None:
    batch = np.arange(ranks * accumulation * micro)
    parts = [share(batch, rank, ranks, accumulation) for rank in range(ranks)]
    assert all(len(part) == accumulation and all(len(piece) == micro for piece in part) for part in parts)
    assert sorted(np.concatenate([piece for part in parts for piece in part])) == list(batch)


def test_macro_f1_agrees_with_scikit_learn() -> None:
    from sklearn.metrics import f1_score

    random = np.random.default_rng(0)
    labels, predicted = random.integers(0, 3, 200), random.integers(0, 4, 200)
    assert macro_f1(labels, predicted, 5) == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert macro_f1(np.empty(0, np.int64), np.empty(0, np.int64), 2) == 0.0
