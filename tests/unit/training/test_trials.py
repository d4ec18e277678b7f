"""A trial paused for another one and continued is the trial that was never paused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.rows import Rows
from autoglm_ops.training.trials import Trials, folds_of


class Tiny(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = torch.nn.Embedding(8, 4)
        self.head = torch.nn.Linear(4, 2)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any) -> Any:
        mean = (self.embed(input_ids) * attention_mask[..., None]).sum(1) / attention_mask.sum(1, keepdim=True)
        return type("Out", (), {"logits": self.head(mean)})


@pytest.fixture
def rows() -> Rows:
    random = np.random.default_rng(0)

    def arrays(count: int) -> TokenArrays:
        labels = random.integers(0, 2, count)
        tokens = np.concatenate([[1 + label, *random.integers(3, 8, 3)] for label in labels]).astype(np.int32)
        return TokenArrays(tokens, np.arange(count + 1) * 4, labels)

    return Rows(arrays(60), arrays(24), 0, 2)


def prepare(choices: Mapping[str, Any], count: int) -> tuple[Any, Recipe]:
    torch.manual_seed(3)
    recipe = Recipe(
        learning_rate=choices["rate"], weight_decay=0.1, batch_size=8, warmup_share=0.1, schedule="cosine", label_smoothing=0.0,
        token_dropout=0.2, gradient_clip=1.0, steps=12, report=(2, 4, 12), seed=5,
    )  # fmt: skip
    return Tiny(), recipe


A, B = {"rate": 0.05}, {"rate": 0.01}


def test_a_paused_trial_goes_on_bit_for_bit(rows: Rows, tmp_path: Path) -> None:
    alone = Trials(tmp_path / "alone", folds_of(rows, 1), prepare)
    expected = [alone(0, A, 0, 2), alone(0, A, 2, 4), alone(0, A, 4, 12)]
    shared = Trials(tmp_path / "shared", folds_of(rows, 1), prepare)
    found = [shared(0, A, 0, 2)]
    shared(1, B, 0, 4)
    found.append(shared(0, A, 2, 4))
    shared(1, B, 4, 12)
    again = Trials(tmp_path / "shared", folds_of(rows, 1), prepare)  # a new process finds the checkpoint
    found.append(again(0, A, 4, 12))
    assert found == expected
    assert not list((tmp_path / "shared").glob("trial-*"))  # whole trials leave nothing behind


def test_what_was_trained_already_is_answered_the_same(rows: Rows, tmp_path: Path) -> None:
    trials = Trials(tmp_path, folds_of(rows, 1), prepare)
    assert trials(0, A, 0, 4) == trials(0, A, 2, 4)


def test_folds_share_no_row_and_cover_all(rows: Rows, tmp_path: Path) -> None:
    folds = folds_of(rows, 3)
    assert sum(len(fold.validation) for fold in folds) == 60 and all(len(fold.train) == 40 for fold in folds)
    assert np.array_equal(folds[1].validation[0], rows.train[1])
    assert 0 <= Trials(tmp_path, folds, prepare)(0, A, 0, 4) <= 1


def test_a_fold_keeps_the_weights_of_its_rows(rows: Rows) -> None:
    weights = np.linspace(0.5, 1.5, len(rows.train)).astype(np.float32)
    folds = folds_of(replace(rows, train=replace(rows.train, weights=weights)), 3)
    for number, fold in enumerate(folds):
        assert fold.train.weights is not None
        assert fold.train.weights.tolist() == [weight for place, weight in enumerate(weights.tolist()) if place % 3 != number]
