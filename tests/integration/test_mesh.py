"""A model on two ranks that compute it together is the model that one rank trains alone: losses, published weights, checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tiny_lm import BODY, GLM, assert_close, job, losses, rows, saved, trained, weights

from autoglm_ops.training.lm_job import LmJob
from autoglm_ops.training.warm import WarmGroup

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
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
    again = job(place / f"{name}-again", place / "rows", scratch=cut_back(whole), **CUTS[name])
    assert trained(group, again)["changes"] == []
    assert resumed(again) in (1, 2)
    for tensor, value in weights(whole).items():
        assert (weights(again)[tensor] == value).all(), tensor
    sharded = job(place / f"{name}-zero", place / "rows", zero_stage=1)
    trained(group, sharded)
    for of, onto in ((whole, {"zero_stage": 1}), (sharded, CUTS[name])):
        moved = job(Path(f"{of.out}-moved"), place / "rows", scratch=cut_back(of), **onto)
        assert [change["kind"] for change in trained(group, moved)["changes"]] == ["layout"]
        assert resumed(moved) in (1, 2)
        assert_close(weights(moved), weights(of), WEIGHT)


def cut_back(one: LmJob) -> Path:
    """A copy of its checkpoints as they were after two of its four steps; the third one moves weights, the last one has a rate of zero.

    On a busy machine a checkpoint is left out while the one before it is being written: then there is that one.
    """
    copy = Path(f"{one.out}-cut-{len(list(Path(one.out).parent.iterdir()))}")
    shutil.copytree(one.scratch, copy)
    shutil.rmtree(copy / "step-000000003")
    return copy


def resumed(one: LmJob) -> int:
    return int(json.loads((Path(one.out) / "measured.json").read_text())["resumed_at_step"])


@pytest.mark.parametrize(("cut", "precision"), [("tensor", "bf16"), ("pipeline", "fp32")])
def test_a_launch_publishes_a_whole_model(cut: str, precision: str, tmp_path: Path) -> None:
    """Through the command line: the planner is asked for a cut, the ranks train it, and transformers opens what is published."""
    from transformers import AutoModelForCausalLM

    (tmp_path / "text.jsonl").write_text(
        "".join(json.dumps({"text": f"the {n} sun, the {n} moon " * 4}) + "\n" for n in range(300))
    )
    (tmp_path / "train-config.yaml").write_text(
        "model: {name: glm-tiny, seq_length: 32, layers: 2}\n"
        "dataset: {path: text.jsonl, vocabulary: 400}\n"
        f"training: {{batch_size: 16, max_steps: 4, evaluations: 2, learning_rate: 0.003, precision: {precision}, {cut}: 2}}\n"
        "pipeline: {data_flow: false}\n"
    )
    told = launched(tmp_path, "launch", "--config", str(tmp_path / "train-config.yaml"), "--json")
    record = json.loads(next((tmp_path / "home" / "launches").glob("*/launch.json")).read_text())
    assert (record["plan"][cut], record["plan"]["ranks"], record["trained"]["steps"]) == (2, 2, 4), told
    assert record["trained"]["dtype"] == {"bf16": "bfloat16", "fp32": "float32"}[precision]
    assert record["trained"]["best_value"] < record["trained"]["first_value"]
    model = AutoModelForCausalLM.from_pretrained(next((tmp_path / "home" / "launches").glob("*/model")))
    assert sum(parameter.numel() for parameter in model.parameters()) == record["trained"]["parameters"]


def launched(folder: Path, *words: str) -> str:
    given = {**os.environ, "AUTOGLM_HOME": str(folder / "home"), "AUTOGLM_CHECKOUT": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "autoglm_ops", *words]
    done = subprocess.run(command, cwd=ROOT, env=given, capture_output=True, text=True, timeout=1500, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout
