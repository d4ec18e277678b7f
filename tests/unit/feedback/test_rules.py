"""Conditions and rules as their owner writes them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from autoglm_ops.contracts.feedback import Signal
from autoglm_ops.errors import SettingsError
from autoglm_ops.feedback.rules import Condition, parse

Make = Callable[..., Signal]


def test_a_condition_with_a_limit_needs_the_whole_interval_beyond_it(make_signal: Make) -> None:
    said = {"latency": make_signal("latency", False).model_copy(update={"low": 0.4, "high": 0.6})}
    cases = {"latency > 0.3": True, "latency > 0.5": False, "latency < 0.7": True, "latency<0.5": False, "latency": False}
    assert {text: Condition.of(text).holds(said) for text in cases} == cases


def test_a_silent_signal_meets_no_condition(make_signal: Make) -> None:
    said = {"quality": make_signal("quality", False, 0.0).model_copy(update={"silent": True})}
    assert not Condition.of("quality < 0.9").holds(said) and not Condition.of("quality < 0.9").holds({})


@pytest.mark.parametrize(
    ("items", "told"),
    [
        ({}, "must be a list"),
        ([], "must be a list"),
        ("latency", "must be a list"),
        ([{"when": ["speed"], "key": "a.b", "add": 1, "reason": "r"}], "rule 1: .*'speed' is no condition"),
        ([{"when": ["latency > x"], "key": "a.b", "add": 1, "reason": "r"}], "is no condition"),
        ([{"when": ["latency"], "key": "a.b", "add": 1, "multiply": 2, "reason": "r"}], "one of multiply, add and set"),
        ([{"when": ["latency"], "key": "a.b", "set": "int8", "reason": "r"}], "a.b is no word to be set"),
        ([{"when": ["latency"], "key": "train.quantization", "set": "int4", "reason": "r"}], "set to one of none, int8"),
        ([{"when": ["latency"], "key": "train.quantization", "add": 1, "reason": "r"}], "set to one of none, int8"),
        ([{"when": ["latency"], "key": "a.b", "multiply": -1, "reason": "r"}], "multiply"),
        ([{"when": ["latency"], "key": "a.b", "add": float("nan"), "reason": "r"}], "add"),
        ([{"when": ["latency"], "key": "a.b", "add": 1}], "reason"),
        ([{"when": ["latency"], "key": "a.b", "add": 1, "reason": "r", "then": 1}], "then"),
    ],
)
def test_a_file_that_holds_no_rules_is_refused_by_name_and_place(items: object, told: str) -> None:
    with pytest.raises(SettingsError, match=told) as caught:
        parse(items, "feedback.rules = mine.yaml")
    assert "mine.yaml" in str(caught.value)
