"""Half a year of nights with reporters that lie; tests/benchmarks/proof_feedback.py plays ten."""

from __future__ import annotations

import pytest
from feedback_nights import Told, play


@pytest.fixture(scope="module")
def honest() -> Told:
    return play(180, 0.0)


@pytest.mark.parametrize("hostile", [0.1, 0.2])
def test_fewer_liars_than_a_fifth_change_no_signal_and_no_patch(honest: Told, hostile: float) -> None:
    told = play(180, hostile)
    assert told.fired == honest.fired and told.moves == honest.moves
    assert not told.left and not told.turned
    assert set(told.refused.values()) == {180}


def test_with_a_third_of_liars_no_bound_is_left_and_nothing_oscillates(honest: Told) -> None:
    told = play(180, 0.3)
    assert not told.left and not told.turned and not honest.left and not honest.turned
    assert len(honest.moves) > 25
