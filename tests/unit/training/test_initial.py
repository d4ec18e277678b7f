"""Embeddings that begin with what naive Bayes knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from autoglm_ops.contracts.arrays import TokenArrays, write_arrays
from autoglm_ops.errors import UsageError
from autoglm_ops.training import initial
from autoglm_ops.training.models import ModelSpec, build

SPEC = ModelSpec(
    name="glm-tiny",
    folder=None,
    overrides={"hidden_size": 16, "layers": 1, "heads": 2, "dropout": 0.0},
    vocabulary=8,
    pad_id=0,
    max_length=8,
    labels=("neg", "pos"),
)


@pytest.fixture
def rows(tmp_path: Path) -> TokenArrays:
    """3 says neg, 4 says pos, 5 says nothing; said twice in a row is said once."""
    write_arrays(tmp_path, "train", [[3, 3, 5], [3, 5], [4, 5], [4, 4, 4, 5]], [0, 0, 1, 1])
    return TokenArrays.open(tmp_path, "train")


def test_the_odds_say_which_label_a_token_speaks_for(rows: TokenArrays) -> None:
    found = initial.odds(rows, 2, 8)
    assert found.shape == (8, 2) and np.allclose(found.sum(1), 0) and np.isclose((found**2).mean(), 1)
    assert found[3, 0] > 0 > found[3, 1] and np.allclose(found[3], found[4][::-1]) and np.allclose(found[5], 0)


def test_only_the_first_columns_are_new_and_pad_stays_nothing(rows: TokenArrays) -> None:
    fresh, told = build(SPEC, 1), initial.start(build(SPEC, 1), "odds", SPEC, rows)
    before, after = (module.get_input_embeddings().weight.detach() for module in (fresh, told))
    assert torch.equal(before[1:, 2:], after[1:, 2:]) and not torch.equal(before[:, :2], after[:, :2])
    assert torch.count_nonzero(after[0]) == 0 and after[3, 0] > 0 > after[4, 0]
    again = initial.start(build(SPEC, 1), "odds", SPEC, rows).get_input_embeddings().weight
    assert torch.equal(after, again)
    same = initial.start(build(SPEC, 1), "random", SPEC, rows).get_input_embeddings().weight
    assert torch.equal(before, same)


def test_rows_of_one_label_tell_nothing(tmp_path: Path) -> None:
    write_arrays(tmp_path, "train", [[3], [4]], [0, 0])
    assert np.isfinite(initial.odds(TokenArrays.open(tmp_path, "train"), 1, 8)).all()


def test_a_model_that_brings_its_embeddings_keeps_them() -> None:
    with pytest.raises(UsageError, match="brings its own"):
        initial.check("odds", SPEC.model_copy(update={"folder": "somewhere"}))
