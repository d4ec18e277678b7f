"""What the stage `tune` refuses before a trial is spent, and which trials it fails before they are trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.feedback import PatchSet, SearchSpacePatch
from autoglm_ops.contracts.training import HardwareSpec
from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.planning import make_plan
from autoglm_ops.settings import resolve
from autoglm_ops.stages import sizes, tune
from autoglm_ops.stages.base import Context
from autoglm_ops.stages.plan import exact_shape
from autoglm_ops.training.models import ModelSpec


def context(root: Path, space: dict[str, Any], memory_gib: int = 1, **more: Any) -> Context:
    """A workspace after `plan`, of a machine with so much memory."""
    settings = resolve({"tune": {"space": space, **more}, "model": {"name": "glm-tiny"}})
    PatchSet().write(root / "inputs" / "patches.json")
    meta = TokenMeta(vocabulary=8000, pad_id=0, max_length=128, labels=("a", "b"), rows={"train": 9})
    meta.write(root / "out" / "tokenize" / "meta.json")
    shape = exact_shape(ModelSpec.of(settings.model.model_dump(), meta, root))
    plan = make_plan(HardwareSpec(cpus=2, memory_gib=memory_gib), shape, batch_size=32)
    plan.write(root / "out" / "plan" / "plan.json")
    return Context(root=root, out=root / "o", home=root, origin=root, scratch=root / "s", run="local", settings=settings)


def test_an_empty_space_is_refused_and_tuning_that_is_off_needs_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"tune\.space is empty while tune\.enabled is true"):
        tune.searched(context(tmp_path, {}))
    assert tune.searched(context(tmp_path, {}, enabled=False))[2] == "tune.enabled is false"


def test_more_memory_lets_a_study_search_wider(tmp_path: Path) -> None:
    asked = {"model.hidden_size": {"adaptive": [32, 8192]}, "model.layers": {"int": [1, 4]}}
    tops = []
    for memory in (1, 4):
        space, reasons, _ = tune.searched(context(tmp_path / str(memory), asked, memory))
        (width,) = (dimension for dimension in space.dimensions if dimension.key == "model.hidden_size")
        tops.append(width.high)
        assert "does not fit" in reasons[0] and "usable by a rank" in reasons[0]
        fits = sizes.fits(context(tmp_path / f"{memory}-again", asked, memory))
        assert not fits({"model.hidden_size": int(width.high), "model.layers": 1})
        assert fits({"model.hidden_size": int(width.high) + 16, "model.layers": 1})
    assert 32 < tops[0] < tops[1] < 8192


def test_a_dry_run_takes_an_adaptive_range_whole_and_says_that_it_will_be_cut() -> None:
    """Before the stage `plan` nobody knows what fits."""
    space = {
        "model.hidden_size": {"adaptive": [32, 256]},
        "model.heads": {"choice": [2, 4], "when": {"model.hidden_size": [64]}},
    }
    patch = SearchSpacePatch(
        key="tune.space.model.hidden_size",
        old=space["model.hidden_size"],
        new={"adaptive": [64, 256]},
        signal="drift",
        reason="r",
        evidence={},
        created="2026-01-01",
        expires="2026-02-01",
    )
    for patches, low in (((), 32), ((patch,), 64)):
        told = tune.dry_run(resolve({"tune": {"space": space}}), PatchSet(patches=patches), None)
        assert told["space"]["model.hidden_size"] == {"int": [low, 256]}
        assert (
            told["reasons"][-1] == f"tune.space.model.hidden_size: adaptive [{low}, 256] is cut to memory when the study starts"
        )
        assert told["changes"] == ["model.hidden_size: {'int': [32, 256]} becomes {'int': [64, 256]}"] * bool(patches)
    with pytest.raises(UsageError, match=r"adaptive is for model\.hidden_size"):
        tune.dry_run(resolve({"tune": {"space": {"train.learning_rate": {"adaptive": [1, 4]}}}}), PatchSet(), None)


def test_a_range_in_which_nothing_fits_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Refused, match=r"no-room: tune\.space\.model\.layers: not even 200 fits"):
        tune.searched(context(tmp_path, {"model.layers": {"adaptive": [200, 250]}, "model.hidden_size": {"int": [4096, 4096]}}))


def test_a_combination_that_makes_no_model_does_not_fit(tmp_path: Path) -> None:
    fits = sizes.fits(context(tmp_path, {}))
    assert "must be a multiple of 4 × model.heads = 20" in fits({"model.hidden_size": 64, "model.heads": 5})


def test_a_larger_model_costs_more_in_both_ways(tmp_path: Path) -> None:
    made = context(tmp_path, {})
    small, large = (sizes.costs(made, {"model.hidden_size": size, "train.learning_rate": 1e-3}) for size in (64, 128))
    assert small["size"] < large["size"] and 2 < large["latency"] / small["latency"] < 4


def test_a_patch_made_after_params_yaml_changed_counts_beside_one_made_before(tmp_path: Path) -> None:
    rate, made = "train.learning_rate", context(tmp_path, {"train.learning_rate": {"loguniform": [1e-3, 8e-3]}})
    fields = {"key": f"tune.space.{rate}", "signal": "drift", "reason": "r", "created": "2026-01-05", "expires": "2026-01-12"}
    patches = [
        SearchSpacePatch.model_validate({**fields, "old": {"loguniform": old}, "new": {"loguniform": new}, "evidence": {}})
        for old, new in (([5e-4, 0.01], [5e-4, 0.0125]), ([1e-3, 8e-3], [1e-3, 0.01]))
    ]
    PatchSet(patches=tuple(patches)).write(tmp_path / "inputs" / "patches.json")
    space, reasons, _ = tune.searched(made)
    assert space.as_settings() == {rate: {"loguniform": [1e-3, 0.01]}}
    assert [reason.split()[0] for reason in reasons] == ["stale", "patch"]
