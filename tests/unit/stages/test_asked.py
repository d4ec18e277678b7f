"""What a run asks for itself counts over its team's settings, and is refused before any work where it cannot be had."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.feedback import PatchSet, Signal
from autoglm_ops.errors import SettingsError, UsageError
from autoglm_ops.feedback.compiler import CompiledPatches
from autoglm_ops.settings import load_tree, resolve
from autoglm_ops.stages import asked, loop, runs, snapshot
from autoglm_ops.stages.runs import Request

ROOT = Path(__file__).parents[3]
TEAM = 'cluster.teams={"default": {"resources": {"gpus": 4, "cpu": 8}, "priority": "high"}}'
INT8 = "train.quantization"
AWAY = "cluster.backend=kubernetes"


def settled(*overrides: str, environ: dict[str, str] | None = None) -> Any:
    tree, sources = load_tree(ROOT / "params.yaml", overrides=overrides, environ=environ or {})
    return asked.settled(tree, sources)


@given(
    gpus=st.none() | st.integers(0, 64), cpu=st.none() | st.integers(1, 64), priority=st.sampled_from([None, "low", "normal"])
)
def test_the_runs_word_is_the_last_and_the_teams_counts_where_it_has_none(gpus: Any, cpu: Any, priority: Any) -> None:
    words = {"resources.gpus": gpus, "resources.cpu": cpu, "priority": priority}
    said = [f"cluster.{key}={value}" for key, value in words.items() if value is not None]
    kind = ["cluster.resources.gpu=l40s"] if gpus != 0 else []
    cluster = settled(AWAY, TEAM, *said, *kind).cluster.of_team("default")
    assert cluster.resources.gpus == (4 if gpus is None else gpus)
    assert cluster.resources.cpu == (8 if cpu is None else cpu)
    assert cluster.priority == (priority or "high")


def test_another_teams_settings_stay_and_the_deployments_do_not_count_as_asked() -> None:
    cluster = settled(AWAY, TEAM.replace("default", "vision"), "cluster.resources.gpus=1", "cluster.resources.gpu=l40s").cluster
    assert (cluster.of_team("default").resources.gpus, cluster.of_team("vision").resources.gpus) == (1, 4)
    deployed = settled(AWAY, TEAM, "cluster.resources.gpu=l40s", environ={"AUTOGLM__CLUSTER__RESOURCES__GPUS": "1"}).cluster
    assert deployed.of_team("default").resources.gpus == 4


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (["cluster.resources.gpus=2"], SettingsError, "gpus = 2, but cluster.backend is local and this machine has no GPUs"),
        (["cluster.resources.gpus=2", "cluster.rehearse=true"], SettingsError, "this machine has no GPUs"),
        (["cluster.resources.gpu=l40s"], SettingsError, "'l40s' is a kind of GPU, and cluster.resources.gpus is 0"),
        ([AWAY, "cluster.resources.gpu=l40s"], SettingsError, r"leave it out, or say how many"),
        ([AWAY, "cluster.resources.gpus=2"], SettingsError, "names no kind"),
        ([AWAY, "cluster.resources.gpus=2", "cluster.resources.gpu=gtx"], UsageError, "'gtx' is not known; choose from"),
        ([AWAY, "cluster.resources.gpus=65", "cluster.resources.gpu=l40s"], SettingsError, "less than or equal to 64"),
        (["train.precision=fp16"], UsageError, "needs a GPU"),
        (["train.quantization=int4"], SettingsError, "'none' or 'int8'"),
        (["train.precision=int8"], SettingsError, "'auto', 'fp32', 'bf16' or 'fp16'"),
    ],
)
def test_what_cannot_be_had_is_refused_before_there_is_a_workspace(
    overrides: list[str], error: type[Exception], said: str, tmp_path: Path
) -> None:
    request = Request("train_on_demand", "manual__1", date(2026, 1, 9), overrides=tuple(overrides))
    with pytest.raises(error, match=said):
        runs.open_run(request, ROOT, tmp_path)
    assert not [path for path in (tmp_path / "runs").iterdir() if path.name != ".lock"]


@pytest.mark.parametrize(
    ("config", "said"), [({"model_type": "gpt2"}, "'gpt2', and it is proven for bert, glm, glm4"), ({}, "None")]
)
def test_int8_of_a_family_that_cannot_be_had_so_is_refused_and_no_other_run_is(
    config: dict[str, str], said: str, tmp_path: Path
) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "config.json").write_text(json.dumps(config))
    tree, sources = load_tree(ROOT / "params.yaml", overrides=["model.name=theirs", "train.quantization=int8"], environ={})
    with pytest.raises(SettingsError, match=f"train.quantization = int8, but model.name = 'theirs' is of the family {said}"):
        asked.settled(tree, sources, tmp_path)
    tree, sources = load_tree(ROOT / "params.yaml", overrides=["model.name=theirs"], environ={})
    assert asked.settled(tree, sources, tmp_path).train.quantization == "none"
    assert INT8 not in {one.key for one in _slow(tree, tmp_path).patches}


def test_int8_is_had_on_x86_processors_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settled("train.quantization=int8").train.quantization == "int8"
    monkeypatch.setattr("platform.machine", lambda: "arm64")
    with pytest.raises(SettingsError, match="x86 processors alone, and this machine is arm64"):
        settled("train.quantization=int8")
    assert settled().train.quantization == "none"


def test_answers_that_are_slow_ask_for_int8_and_a_run_that_says_none_has_its_way(tmp_path: Path) -> None:
    tree, _ = load_tree(ROOT / "params.yaml", overrides=[], environ={})
    assert INT8 not in {one.key for one in _slow(tree, tmp_path).patches}, "glm-small gains nothing by it"
    tree, sources = load_tree(ROOT / "params.yaml", overrides=["model.hidden_size=256"], environ={})
    made = [one for one in _slow(tree, tmp_path).patches if one.key == INT8]
    assert [(one.old, one.new) for one in made] == [("none", "int8")]
    loop.apply_fixed(tree, sources, PatchSet(patches=tuple(made)), tmp_path)
    assert resolve(tree, sources).train.quantization == "int8" and sources[INT8].startswith("patch of")
    tree, sources = load_tree(ROOT / "params.yaml", overrides=["train.quantization=none"], environ={})
    loop.apply_fixed(tree, sources, PatchSet(patches=tuple(made)), tmp_path)
    assert resolve(tree, sources).train.quantization == "none"


def _slow(tree: dict[str, Any], origin: Path) -> CompiledPatches:
    """What the loop makes of a day on which answers were slow."""
    told = {"value": 2.0, "low": 2.0, "high": 2.0, "threshold": 1.0, "rows": 300, "window": ("2026-01-08", "2026-01-08")}
    slow = Signal.model_validate({"name": "latency", "fired": True, "reason": "slow", **told})
    return loop.decide(resolve(tree, {}), [slow], PatchSet(), date(2026, 1, 9), origin=origin)


def test_gpus_of_this_machine_are_asked_for_by_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'Fake, 24564\\nFake, 24564\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for gpus, seen in ((0, 2), (1, 1), (2, 2)):
        assert snapshot.training_hardware(settled(f"cluster.resources.gpus={gpus}")).gpus == seen
    with pytest.raises(SettingsError, match="this machine has 2 GPUs"):
        settled("cluster.resources.gpus=3")
    with pytest.raises(SettingsError, match="whose GPUs are seen"):
        settled("cluster.resources.gpus=1", "cluster.resources.gpu=l40s")
    assert settled("train.precision=fp16").train.precision == "fp16"


def test_a_deployments_gpus_do_not_keep_its_settings_from_a_laptop() -> None:
    assert settled(environ={"AUTOGLM__CLUSTER__RESOURCES__GPUS": "4"}).cluster.resources.gpus == 4
