"""A model on two ranks that compute it together is the model that one rank trains alone: losses, published weights, checkpoints."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_lm import BODY, GLM, assert_close, job, losses, rows, saved, trained, weights

from autoglm_ops.training.lm_job import LmJob
from autoglm_ops.training.warm import WarmGroup

pytestmark = pytest.mark.slow
CUTS: dict[str, dict[str, Any]] = {"tensor": {"tensor": 2}, "pipeline": {"pipeline": 2}}
LOSS, WEIGHT = 1e-5, 1e-4
"""Sums in another order: of losses relative to them; of weights in units of theirs, where Adam makes much of a tiny gradient's rounding."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("mesh")
    rows(folder / "rows")
    return folder


@pytest.fixture(scope="module")
def group(place: Path) -> Iterator[WarmGroup]:
    with WarmGroup(job(place / "first", place / "rows"), BODY) as ranks:
        yield ranks


@pytest.mark.parametrize("family", ["glm", "llama"])
def test_two_ranks_publish_what_one_rank_trains(family: str, place: Path, group: WarmGroup) -> None:
    model = GLM if family == "glm" else saved(family, place / "llama", tied=True)
    alone = job(place / f"{family}-alone", place / "rows", model=model, ranks=1)
    expected = trained(group, alone)
    for name, cut in CUTS.items():
        one = job(place / f"{family}-{name}", place / "rows", model=model, **cut)
        said = trained(group, one)
        assert losses(said) == pytest.approx(losses(expected), rel=LOSS), name
        assert said["parameters"] == expected["parameters"]
        assert_close(weights(one), weights(alone), WEIGHT)


@pytest.mark.parametrize("name", list(CUTS))
def test_a_run_goes_on_bit_for_bit_on_its_layout_and_within_rounding_on_another(
    name: str, place: Path, group: WarmGroup
) -> None:
    whole = job(place / f"{name}-whole", place / "rows", **CUTS[name])
    trained(group, whole)
    again = job(place / f"{name}-again", place / "rows", scratch=Path(whole.scratch), **CUTS[name])
    assert trained(group, again)["changes"] == []
    assert resumed(again) == 3
    for tensor, value in weights(whole).items():
        assert (weights(again)[tensor] == value).all(), tensor
    sharded = job(place / f"{name}-zero", place / "rows", zero_stage=1)
    trained(group, sharded)
    for of, onto in ((whole, {"zero_stage": 1}), (sharded, CUTS[name])):
        moved = job(Path(f"{of.out}-moved"), place / "rows", scratch=Path(of.scratch), **onto)
        assert [change["kind"] for change in trained(group, moved)["changes"]] == ["layout"]
        assert resumed(moved) == 3
        assert_close(weights(moved), weights(of), WEIGHT)


def resumed(one: LmJob) -> int:
    return int(json.loads((Path(one.out) / "measured.json").read_text())["resumed_at_step"])
