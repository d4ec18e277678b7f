"""The range test: the same twice, a rate that trains, and not a bit left behind."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.training.range_test import choose
from autoglm_ops.training.trainer import AutoGLMTrainer

CONFIG = {"model": "glm-tiny", "vocabulary": 32, "max_steps": 30, "auto_lr": True, "weight_decay": 0.0}
IDS = (torch.arange(96).reshape(12, 8)) % 32
BATCHES = [{"input_ids": IDS[row : row + 3]} for row in range(0, 12, 3)]


def test_a_tenth_of_the_rate_with_the_lowest_loss() -> None:
    assert choose((1e-4, 1e-3, 1e-2, 1e-1), (3.0, 2.5, 1.9, 2.2)) == 1e-3
    with pytest.raises(Refused, match=r"found no rate between 0\.0001 and 0\.001 that lowers the loss"):
        choose((1e-4, 1e-3), (3.0, 3.1))


def test_it_is_deterministic_and_leaves_weights_and_random_states_alone() -> None:
    torch.set_num_threads(1)
    found = []
    for _ in range(2):
        trainer = AutoGLMTrainer(CONFIG)
        weights = {name: tensor.clone() for name, tensor in trainer.module.state_dict().items()}
        states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
        found.append(trainer._range_test(BATCHES, trainer._reader()))
        assert all(torch.equal(weights[name], tensor) for name, tensor in trainer.module.state_dict().items())
        assert torch.equal(torch.get_rng_state(), states[0])
        assert (np.random.get_state()[1] == states[1]).all()
        assert random.getstate() == states[2]
    assert found[0] == found[1]
    assert 1e-4 < found[0].chosen < 0.1


def test_a_fit_with_the_found_rate_is_the_fit_with_that_rate_given() -> None:
    auto = AutoGLMTrainer(CONFIG).fit(BATCHES, BATCHES)
    assert auto.range_test is not None
    given = AutoGLMTrainer({**CONFIG, "auto_lr": False, "learning_rate": auto.learning_rate}).fit(BATCHES, BATCHES)
    assert auto.learning_rate == auto.range_test.chosen == given.learning_rate
    assert (auto.losses, auto.validation) == (given.losses, given.validation)
    assert auto.validation[-1][1] < 0.8 * auto.losses[0][1]


def test_a_loader_that_is_read_once_cannot_be_tested() -> None:
    with pytest.raises(UsageError, match="this one can be read only once"):
        AutoGLMTrainer(CONFIG).fit(iter(BATCHES), BATCHES)
