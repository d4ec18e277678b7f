"""Adaptive ranges: cut by memory, never beyond what fits; Python, text and YAML say the same space."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.errors import Refused, SettingsError, UsageError
from autoglm_ops.settings import resolve
from autoglm_ops.tuning import parse_space, tune
from autoglm_ops.tuning.room import adapted

PRESENT = {"model.hidden_size": 128, "model.layers": 1, "model.heads": 4}


def below(limit: int) -> Any:
    def fits(choices: Mapping[str, Any]) -> str:
        size = {**PRESENT, **choices}
        need = size["model.hidden_size"] * size["model.layers"]
        return "" if need <= limit else f"{need} of {limit}"

    return fits


@given(low=st.integers(1, 300), width=st.integers(0, 400), limit=st.integers(1, 900), heads=st.sampled_from([1, 2, 4, 8]))
def test_the_largest_multiple_that_fits_ends_the_range(low: int, width: int, limit: int, heads: int) -> None:
    step, present = 4 * heads, {**PRESENT, "model.heads": heads}
    inside = [size for size in range(low, low + width + 1) if size % step == 0]
    try:
        raw, reasons = adapted({"model.hidden_size": {"adaptive": [low, low + width]}}, present, below(limit))
    except UsageError:
        assert not inside
        return
    except Refused as error:
        assert "no-room" in str(error) and inside[0] > limit
        return
    fitting = [size for size in inside if size <= limit]
    assert raw["model.hidden_size"] == {"int": [fitting[0], fitting[-1]], "step": step}
    assert ("does not fit" in reasons[0]) == (fitting != inside)
    (dimension,) = parse_space(raw).dimensions
    assert {dimension.value(place / 997) for place in range(997)} == set(fitting)
    assert all(dimension.contains(size) for size in fitting) and not dimension.contains(fitting[0] + 1)


def test_depth_width_and_heads_are_cut_beside_each_other() -> None:
    raw, reasons = adapted(
        {
            "model.hidden_size": {"adaptive": [32, 256]},
            "model.layers": {"adaptive": [2, 12]},
            "model.heads": {"choice": [2, 4]},
        },
        PRESENT,
        below(320),
    )
    assert raw == {
        "model.hidden_size": {"int": [32, 160], "step": 16},
        "model.layers": {"int": [2, 10]},
        "model.heads": {"choice": [2, 4]},
    }
    assert reasons[0] == "tune.space.model.hidden_size: adaptive [32, 256] is 32 to 160 by 16: 176 does not fit: 352 of 320"


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"model.dropout": {"adaptive": [1, 2]}}, "adaptive is for model.hidden_size"),
        ({"model.layers": {"adaptive": [3, 2]}}, "low first"),
        ({"model.layers": {"adaptive": [0, 2]}}, "from 1 on"),
        ({"model.layers": {"adaptive": [1.5, 2]}}, "two whole numbers"),
        ({"model.hidden_size": {"adaptive": [33, 40]}}, "holds no multiple of 16"),
    ],
)
def test_a_range_that_is_none_is_refused(entry: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        adapted(entry, PRESENT, below(10**9))


SAID = """
model.hidden_size: {adaptive: [32, 256]}
train.learning_rate: {loguniform: [0.0001, 0.01]}
model.dropout: {uniform: [0.0, 0.3], when: {model.layers: [2, 3]}}
model.layers: {int: [1, 5], step: 2}
train.schedule: {choice: [linear, cosine]}
"""
PYTHON = {
    "model.hidden_size": tune.adaptive(32, 256),
    "train.learning_rate": tune.loguniform(1e-4, 1e-2),
    "model.dropout": tune.uniform(0.0, 0.3, when={"model.layers": [2, 3]}),
    "model.layers": tune.integer(1, 5, step=2),
    "train.schedule": tune.choice("linear", "cosine"),
}
TEXT = {
    "model.hidden_size": "tune.adaptive(32, 256)",
    "train.learning_rate": "tune.loguniform(1e-4, 1e-2)",
    "model.dropout": "tune.uniform(0.0, 0.3, when={'model.layers': [2, 3]})",
    "model.layers": "tune.integer(1, 5, step=2)",
    "train.schedule": "tune.choice('linear', 'cosine')",
}


def test_yaml_python_and_text_say_the_same() -> None:
    assert yaml.safe_load(SAID) == PYTHON
    assert resolve({"tune": {"space": TEXT}}).tune.space == PYTHON
    whole, _ = adapted(PYTHON, PRESENT, below(10**9))
    space = parse_space(whole)
    assert parse_space(space.as_settings()) == space and space.version == parse_space(space.as_settings()).version


@pytest.mark.parametrize(
    "text", ["tune.adaptive(__import__('os').getpid(), 2)", "os.system('true')", "tune.nothing(1)", "tune.uniform(1)", "uniform(0, 1)", "(" * 5000]
)  # fmt: skip
def test_text_is_read_and_never_run(text: str) -> None:
    with pytest.raises(SettingsError, match=r"is none of tune\.adaptive"):
        resolve({"tune": {"space": {"model.layers": text}}})


@pytest.mark.parametrize("step", [0, 1.5, 3, True])
def test_a_step_must_lead_from_end_to_end(step: Any) -> None:
    with pytest.raises(UsageError, match="step ="):
        parse_space({"model.layers": {"int": [1, 3], "step": step}})


@pytest.mark.parametrize("entry", [{"int": [2, 4], "step": 2}, {"step": 2, "int": [2, 4]}, {"when": {"model.layers": [1]}, "choice": [2, 4]}, {"when": {"model.layers": [1]}, "step": 2, "int": [2, 4]}])  # fmt: skip
def test_heads_are_read_in_whatever_order_their_keys_stand(entry: dict[str, Any]) -> None:
    raw, _ = adapted({"model.hidden_size": {"adaptive": [32, 256]}, "model.heads": entry}, PRESENT, below(10**9))
    assert raw["model.hidden_size"] == {"int": [32, 256], "step": 16}


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ({"int": [1]}, "takes \\[low, high\\]"),
        ({"int": ["a", 3]}, "takes \\[low, high\\]"),
        ({"int": 5}, "takes a list"),
        ({"int": [8, 2]}, "low must not be above high"),
        ({"int": [0, 2]}, "whole numbers from 1 on"),
        ({"choice": ["a"]}, "whole numbers from 1 on"),
        ({"choice": [2.5]}, "whole numbers from 1 on"),
        ({"loguniform": [1, 8]}, "give int or choice"),
        ({"adaptive": [4]}, "adaptive takes"),
        ("x", "must be one of"),
    ],
)
def test_heads_that_are_none_are_refused_beside_an_adaptive_width(entry: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        adapted({"model.hidden_size": {"adaptive": [32, 256]}, "model.heads": entry}, PRESENT, below(10**9))
