"""The paired test: exact on small cases, calibrated on equals, quick, deterministic."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.errors import UsageError
from autoglm_ops.evaluation.metrics import METRICS, Codes, score
from autoglm_ops.evaluation.paired import compare, interval


def rows(seed: int, count: int, first: float, second: float, labels: int = 2) -> tuple[Codes, Codes, Codes]:
    """Truth and two models that are right with the given chances, independently."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, labels, count)
    wrong = (truth + 1 + rng.integers(0, labels - 1, count)) % labels
    return truth, *(np.where(rng.random(count) < chance, truth, wrong) for chance in (first, second))


def test_the_interval_is_that_of_a_plain_row_bootstrap() -> None:
    truth, first, second = rows(1, 300, 0.85, 0.75)
    rng = np.random.default_rng(0)
    values = []
    for _ in range(2000):
        drawn = rng.integers(0, len(truth), len(truth))
        values.append(score("macro_f1", truth[drawn], first[drawn], 2) - score("macro_f1", truth[drawn], second[drawn], 2))
    found = compare("macro_f1", truth, first, second, labels=2, resamples=2000, seed=3).difference
    assert [found.low, found.high] == pytest.approx(np.quantile(values, [0.025, 0.975]), abs=0.01)


def test_the_p_value_is_that_of_the_exact_sign_test() -> None:
    """For accuracy, swapping answers is McNemar's exact test: 9 against 1 discordant rows give 22/1024."""
    truth = np.zeros(30, dtype=np.int64)
    first, second = truth.copy(), truth.copy()
    first[0], second[1:10] = 1, 1
    found = compare("accuracy", truth, first, second, labels=2, resamples=20_000, seed=5)
    assert found.p_value == pytest.approx(22 / 1024, abs=0.004)


def test_a_model_against_itself_differs_by_nothing() -> None:
    truth, first, _ = rows(2, 200, 0.8, 0.8)
    found = compare("macro_f1", truth, first, first, labels=2, resamples=500, seed=1)
    assert (found.difference.estimate, found.difference.low, found.difference.high, found.p_value) == (0, 0, 0, 1)


@settings(max_examples=30, deadline=None)
@given(st.sampled_from(sorted(METRICS)), st.integers(0, 1000), st.integers(1, 60), st.integers(2, 5))
def test_swapping_the_models_turns_the_sign(metric: str, seed: int, count: int, labels: int) -> None:
    truth, first, second = rows(seed, count, 0.8, 0.6, labels)
    one, other = (
        compare(metric, truth, *pair, labels=labels, resamples=200, seed=0) for pair in ((first, second), (second, first))
    )
    assert one.difference.estimate == pytest.approx(-other.difference.estimate)
    assert one.difference.low <= one.difference.high
    assert 0 < one.p_value <= 1


def test_the_interval_of_one_model_covers_its_score() -> None:
    truth, first, _ = rows(3, 400, 0.8, 0.8)
    found = interval("macro_f1", truth, first, labels=2, resamples=1000, seed=1)
    assert found.low < found.estimate == score("macro_f1", truth, first, 2) < found.high


def test_same_seed_same_numbers() -> None:
    data = rows(4, 300, 0.8, 0.7)
    assert compare("macro_f1", *data, labels=2, resamples=300, seed=9) == compare(
        "macro_f1", *data, labels=2, resamples=300, seed=9
    )


def test_two_thousand_resamples_of_800_rows_take_well_under_a_second() -> None:
    data = rows(5, 800, 0.8, 0.75, labels=5)
    started = time.process_time()
    compare("macro_f1", *data, labels=5, resamples=2000, seed=1)
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(("truth", "first"), [([], []), ([0, 1], [0])])
def test_no_rows_or_unequal_columns_are_refused(truth: list[int], first: list[int]) -> None:
    with pytest.raises(UsageError, match=r"no rows|one length"):
        interval("accuracy", np.array(truth, dtype=np.int64), np.array(first, dtype=np.int64), labels=2, resamples=200, seed=1)
