"""A space is checked before a trial is spent, and patches change it in the open."""

from __future__ import annotations

from typing import Any

import pytest

from autoglm_ops.contracts.feedback import SearchSpacePatch
from autoglm_ops.errors import UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.tuning.space import TUNABLE, changes, parse_space, patched

LR = "train.learning_rate"


def patch(key: str, new: Any) -> SearchSpacePatch:
    return SearchSpacePatch(
        key=key, old=None, new=new, signal="quality", reason="fell", evidence={}, created="2026-01-02", expires="2026-01-09"
    )


def test_a_space_reads_back_as_it_was_written() -> None:
    raw = {
        "train.weight_decay": {"uniform": [0, 0.5]},
        LR: {"loguniform": [1e-4, 1e-2]},
        "model.layers": {"int": [1, 3]},
        "train.schedule": {"choice": ["linear", "cosine"]},
    }
    space = parse_space(raw)
    assert space.as_settings() == raw
    assert [dimension.key for dimension in space.dimensions] == sorted(raw)
    assert parse_space(dict(reversed(raw.items()))).to_json() == space.to_json()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("train.learning_rat", {"uniform": [0, 1]}, r"train.learning_rat is not .* did you mean 'train.learning_rate'"),
        ("train.batch_size", {"int": [1, 2]}, r"not a setting that can be tuned"),
        (LR, {"gaussian": [0, 1]}, r"must be one of \{loguniform"),
        (LR, {"uniform": [0, 1], "int": [0, 1]}, r"must be one of"),
        (LR, [0, 1], r"must be one of"),
        (LR, {"uniform": [1, 0]}, r"low must not be above high, but got low=1, high=0"),
        (LR, {"loguniform": [0, 1]}, r"loguniform must lie above 0, but got low=0"),
        (LR, {"uniform": [0]}, r"takes \[low, high\], two finite numbers"),
        (LR, {"uniform": ["a", 1]}, r"two finite numbers"),
        (LR, {"uniform": [0, float("inf")]}, r"two finite numbers"),
        (LR, {"uniform": [True, 1]}, r"two finite numbers"),
        (LR, {"uniform": 3}, r"takes a list"),
        ("model.layers", {"int": [1, 2.5]}, r"whole numbers"),
        ("train.schedule", {"choice": []}, r"one or more distinct"),
        ("train.schedule", {"choice": ["linear", "linear"]}, r"distinct"),
        ("train.schedule", {"choice": [["linear"]]}, r"plain values"),
        ("model.heads", {"choice": [2, 4], "when": {"model.layers": [1]}}, r"must be another key of tune.space"),
        ("model.heads", {"choice": [2, 4], "when": {"model.heads": [2]}}, r"must be another key of tune.space"),
        ("model.heads", {"choice": [2, 4], "when": 3}, r"when = 3 must name one other key"),
    ],
)
def test_a_bad_dimension_is_named_with_its_rule(key: str, value: Any, said: str) -> None:
    with pytest.raises(UsageError, match=said) as caught:
        parse_space({key: value})
    assert f"tune.space.{key}" in str(caught.value)


def test_patches_lie_over_the_space_in_order_and_say_so() -> None:
    raw = {LR: {"loguniform": [1e-4, 1e-2]}}
    patches = [
        patch(f"tune.space.{LR}", {"loguniform": [1e-4, 5e-3]}),
        patch("train.epochs", 4),
        patch(f"tune.space.{LR}", {"loguniform": [2e-4, 5e-3]}),
    ]
    result, reasons = patched(raw, patches)
    assert parse_space(result).dimensions[0].low == 2e-4
    assert len(reasons) == 2
    assert "quality: fell" in reasons[0]
    assert raw == {LR: {"loguniform": [1e-4, 1e-2]}}


def test_every_tunable_key_is_a_setting() -> None:
    tree = Settings().model_dump()
    assert all(key.split(".")[1] in tree[key.split(".")[0]] for key in TUNABLE)


CONDITIONAL = {
    "model.hidden_size": {"choice": [32, 64]},
    "model.heads": {"choice": [2, 4], "when": {"model.hidden_size": [64]}},
    LR: {"loguniform": [1e-4, 1e-2]},
}


def test_a_condition_rules_a_key_out_and_stands_in_the_settings() -> None:
    space = parse_space(CONDITIONAL)
    assert space.as_settings() == CONDITIONAL
    small, large = space.choose([0.0, 0.5, 0.9]), space.choose([0.9, 0.5, 0.9])
    assert "model.heads" not in small and large["model.heads"] == 4
    assert len(space.features(small)) == len(space.features(large)) == 5


def test_a_condition_that_never_holds_is_refused() -> None:
    with pytest.raises(UsageError, match="can never hold"):
        parse_space({**CONDITIONAL, "model.heads": {"choice": [2], "when": {"model.hidden_size": [128]}}})


def test_places_become_values_within_bounds_and_features_lead_back() -> None:
    space = parse_space(
        {LR: {"loguniform": [1e-4, 1e-2]}, "model.layers": {"int": [1, 3]}, "train.weight_decay": {"uniform": [0, 2]}}
    )
    for place in (0.0, 0.3, 0.999):
        chosen = space.choose([place] * 3)
        assert all(dimension.contains(chosen[dimension.key]) for dimension in space.dimensions)
        by_key = dict(zip([dimension.key for dimension in space.ordered], space.features(chosen), strict=True))
        assert by_key[LR] == pytest.approx(place) and by_key["train.weight_decay"] == pytest.approx(place)


def test_two_versions_of_a_space_differ_line_by_line() -> None:
    wider = {LR: {"loguniform": [1e-5, 1e-2]}, "train.weight_decay": {"uniform": [0, 1]}}
    assert changes(CONDITIONAL, wider) == (
        "model.heads: {'choice': [2, 4], 'when': {'model.hidden_size': [64]}} is gone",
        "model.hidden_size: {'choice': [32, 64]} is gone",
        f"{LR}: {{'loguniform': [0.0001, 0.01]}} becomes {{'loguniform': [1e-05, 0.01]}}",
        "train.weight_decay: {'uniform': [0, 1]} is new",
    )
    assert (
        parse_space(CONDITIONAL).version
        == parse_space(dict(reversed(CONDITIONAL.items()))).version
        != parse_space(wider).version
    )
