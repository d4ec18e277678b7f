"""What is filled in, and that what was said is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.planning import defaults


@pytest.mark.parametrize(("parameters", "rate"), [(768 * 10**3, 1.35e-3), (1_500_000_000, 2.91e-4)])
def test_the_rate_is_kaplans(parameters: int, rate: float) -> None:
    """arXiv:2001.08361, D.6: the rule it was fitted on, from 768 k to 1.5 B parameters."""
    assert defaults.learning_rate(None, parameters, "adamw", False).value == pytest.approx(rate, rel=0.01)


def test_adapters_and_sgd_have_rates_of_their_own() -> None:
    assert defaults.learning_rate(None, 10**9, "adamw", True).value == 2e-4
    assert defaults.learning_rate(None, 10**9, "sgd", True).value == pytest.approx(6e-3)


@given(rows=st.integers(1, 10**9), length=st.integers(8, 1 << 17), epochs=st.floats(0.1, 10))
def test_a_batch_is_a_power_of_two_that_leaves_the_schedule_room(rows: int, length: int, epochs: float) -> None:
    size = defaults.batch_size(None, rows, length, epochs).value
    assert isinstance(size, int)
    assert size & (size - 1) == 0
    assert size == 1 or size * length <= defaults.TOKENS_PER_BATCH
    assert size == 1 or size * defaults.STEPS_WANTED <= rows * epochs


@given(given_size=st.integers(1, 10**6))
def test_what_was_given_is_kept(given_size: int) -> None:
    found = defaults.batch_size(given_size, 10, 8, 1.0)
    assert (found.value, found.given) == (given_size, True)
    assert defaults.seq_length(given_size, 8).value == given_size


def test_a_row_is_no_longer_than_the_model_knows() -> None:
    assert defaults.seq_length(None, 512).value == 512
    assert defaults.seq_length(None, 131072).value == 2048
    assert defaults.seq_length(None, None).value == 2048
