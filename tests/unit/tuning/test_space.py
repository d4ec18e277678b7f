"""A space is checked before a trial is spent, and patches change it in the open."""

from __future__ import annotations

from typing import Any

import pytest

from autoglm_ops.contracts.feedback import SearchSpacePatch
from autoglm_ops.errors import UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.tuning.space import TUNABLE, parse_space, patched

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
