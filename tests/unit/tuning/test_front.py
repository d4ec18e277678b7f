"""The front and its knee, and what importance says: pure, the same for the same trials."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.training import Trial, TuningReport
from autoglm_ops.errors import UsageError
from autoglm_ops.tuning.front import knee, pareto, settle
from autoglm_ops.tuning.importance import importance

SPACE = {"train.learning_rate": {"loguniform": [1e-4, 1e-1]}, "train.weight_decay": {"uniform": [0.0, 1.0]}}
POINTS = st.lists(st.tuples(*[st.integers(0, 9).map(float)] * 3), min_size=1, max_size=30)


@given(POINTS)
def test_the_front_is_what_nothing_beats_and_the_knee_lies_on_it(points: list[tuple[float, ...]]) -> None:
    front = pareto(points)
    assert front
    for place, point in enumerate(points):
        beaten = any(all(a <= b for a, b in zip(other, point, strict=True)) and other != point for other in points)
        assert (place in front) == (not beaten)
    on_it = [points[place] for place in front]
    chosen = knee(on_it)
    shifted = [tuple(7.0 * value + 3.0 for value in point) for point in on_it]
    assert on_it[knee(shifted)] == on_it[chosen]  # no unit counts


def test_a_front_without_a_point_has_no_knee() -> None:
    with pytest.raises(UsageError, match="no knee"):
        knee([])


def trial(number: int, value: float, rate: float, decay: float = 0.5) -> Trial:
    return Trial(
        number=number, params={"train.learning_rate": rate, "train.weight_decay": decay}, state="complete", value=value
    )


def report(*trials: Trial) -> TuningReport:
    return TuningReport(verdict="tuned", objective="validation macro-F1", direction="maximize", space=SPACE, trials=trials)


def test_the_knee_becomes_the_best_and_is_recorded() -> None:
    told = settle(
        report(trial(0, 0.80, 1e-3), trial(1, 0.86, 2e-3), trial(2, 0.87, 3e-3), trial(3, 0.70, 4e-3)),
        ("quality", "size"),
        {0: {"size": 10}, 1: {"size": 20}, 2: {"size": 100}, 3: {"size": 50}},
    )
    assert told.front == (0, 1, 2)
    assert told.best == {"train.learning_rate": 2e-3, "train.weight_decay": 0.5} and told.best_value == 0.86
    assert told.reasons[-1].startswith(
        "trial 1 is the knee of 3 trials on the front: 0.86, size 20; the trial of the Pareto front"
    )
    assert TuningReport.model_validate_json(told.to_json()) == told


def test_a_report_of_one_objective_has_the_bytes_it_always_had() -> None:
    assert not {"front", "objectives", "costs"} & set(report(trial(0, 0.8, 1e-3)).to_json().replace('"', " ").split())


def test_importance_finds_the_setting_that_matters() -> None:
    trials = [
        trial(at, -abs(math.log10(rate) + 2), rate, (at * 7 % 12) / 12)
        for at, rate in enumerate(10 ** (-4 + at / 4) for at in range(12))
    ]
    found = importance(report(*trials))
    assert found == importance(report(*trials)) and abs(sum(found.values()) - 1) < 0.01
    assert next(iter(found)) == "train.learning_rate" and found["train.learning_rate"] > 0.5


@pytest.mark.parametrize("trials", [(), (trial(0, 0.5, 1e-3),) * 3, tuple(trial(at, 0.5, 1e-3) for at in range(6))])
def test_too_few_or_equal_trials_say_nothing(trials: tuple[Trial, ...]) -> None:
    assert importance(report(*trials)) == {}
