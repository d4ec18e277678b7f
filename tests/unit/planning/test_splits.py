"""Copies of a model over several ranks: only degrees that divide it, bytes that add up, and what the bubble and the links cost."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.contracts.training import HardwareSpec, ModelShape, ParallelPlan
from autoglm_ops.errors import UsageError
from autoglm_ops.planning import GPUS, MODELS, Layout, described, make_plan, shape_of_config, survey
from autoglm_ops.planning.parts import activation_bytes, estimate, parameters
from autoglm_ops.planning.planner import layout_of
from autoglm_ops.planning.speed import step_seconds
from autoglm_ops.planning.splits import FAMILIES, degrees, possible, refusal

CPU = HardwareSpec(cpus=2, memory_gib=16)
TINY = {
    "vocab_size": 40, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "head_dim": 8,
}  # fmt: skip


def shape_of(family: str, **changed: Any) -> ModelShape:
    return shape_of_config({"model_type": family, **TINY, **changed}, task="causal-lm", max_length=16)


def known(model: str, length: int = 512) -> ModelShape:
    return shape_of_config(MODELS[model], task="causal-lm", max_length=length)


@settings(max_examples=30)
@given(
    model=st.sampled_from(["smollm2-135m", "glm-4-9b", "llama-2-70b"]),
    gpu=st.sampled_from(GPUS),
    gpus=st.integers(1, 8),
    nodes=st.integers(1, 4),
    batch=st.integers(1, 200),
)
def test_every_cut_divides_the_model_and_keeps_the_batch(model: str, gpu: str, gpus: int, nodes: int, batch: int) -> None:
    shape = known(model)
    for plan in survey(model, "causal-lm", shape, described(gpu, gpus=gpus, nodes=nodes), batch_size=batch).plans:
        heads = shape.kv_width // (shape.query_width // shape.heads)
        assert shape.heads % plan.tensor == heads % plan.tensor == gpus % plan.tensor == shape.layers % plan.pipeline == 0
        assert plan.accumulation >= plan.pipeline
        assert plan.global_batch == batch
        assert plan.ranks == plan.copies * plan.tensor * plan.pipeline <= gpus * nodes
        assert not plan.split or (plan.zero_stage, plan.offload) == (0, "none")


def test_degrees_are_those_that_divide_heads_node_and_layers() -> None:
    assert degrees(described("h100-80g", gpus=8), known("glm-4-9b"), 8) == [
        (1, 2),
        (1, 4),
        (1, 5),
        (1, 8),
        (2, 1),
        (2, 2),
        (2, 4),
    ]
    assert degrees(described("h100-80g", gpus=3), known("glm-4-9b"), 3) == [(1, 2)]
    assert degrees(CPU, known("smollm2-135m"), 2) == [(1, 2)]  # nine heads


@pytest.mark.parametrize(
    ("shape", "cut", "why"),
    [
        (known("glm-4-9b"), (4, 1), "4 does not divide the 2 key-value heads"),
        (known("glm-4-9b"), (1, 3), "3 does not divide the 40 layers"),
        (known("glm-4-9b"), (1, 16), "more than the 8 there are"),
        (known("llama-2-70b"), (3, 1), "3 does not divide the 8 ranks of a node"),
        (known("glm-4.5-air"), (2, 1), "and not glm4_moe"),
        (shape_of_config(MODELS["bert-base"], task="classification", max_length=16), (2, 1), "and not bert"),
        (shape_of_config(MODELS["glm-4-9b"], task="classification", max_length=16), (2, 1), "causal language models alone"),
    ],
)
def test_what_does_not_divide_is_refused_by_its_number(shape: ModelShape, cut: tuple[int, int], why: str) -> None:
    assert why in refusal(described("h100-80g", gpus=8), shape, *cut, 8)


def test_every_kind_that_cannot_run_has_a_line() -> None:
    lines = survey("m", "causal-lm", known("glm-4-9b"), described("h100-80g", gpus=8), batch_size=64).why_not
    assert "tensor 4: 4 does not divide the 2 key-value heads" in lines
    other = survey("m", "causal-lm", known("glm-4.5-air"), described("h100-80g", gpus=8), batch_size=64).why_not
    assert other[-1].startswith("tensor and pipeline parallel: the trainer cuts causal language models of glm, glm4")
    assert not possible(known("glm-4-9b"), "fp16")


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_that_is_cut_has_its_formula(family: str) -> None:
    assert degrees(CPU, shape_of(family), 2) == [(1, 2), (2, 1)]


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", ["glm", "llama", "qwen3"])
def test_bytes_of_the_parts_add_up_to_the_model(family: str, tied: bool) -> None:
    shape = shape_of(family, tie_word_embeddings=tied)
    assert parameters(shape, Layout(1, 1), first=True, last=True) == shape.parameters
    stages = [parameters(shape, Layout(2, 1, 2, pipeline=2), first=first, last=not first) for first in (True, False)]
    assert sum(stages) == shape.parameters + (40 * 32 if tied else 0)  # both ends hold a tied table
    half = parameters(shape, Layout(2, 1, tensor=2), first=True, last=True)
    whole = shape.vectors + (0 if tied else 40 * 32)  # norms, and a table that is not the head's, are on both
    assert 2 * half == shape.parameters + whole


def test_a_pipelines_first_stage_keeps_as_many_micro_batches_as_there_are_stages() -> None:
    shape = known("llama-2-7b")
    layout = Layout(4, 1, 8, pipeline=4)
    edge = 512 * shape.hidden_size * (8 + layout.width)
    assert estimate(shape, layout)["activations"] == 4 * activation_bytes(shape, layout) + edge
    assert activation_bytes(shape, layout) == 512 * shape.layers // 4 * (
        activation_bytes(shape, Layout(1, 1)) // (512 * shape.layers)
    )
    again = Layout(4, 1, 8, pipeline=4, checkpointing=True)
    assert activation_bytes(shape, again) < activation_bytes(shape, layout) / 4


def test_a_pipeline_waits_for_its_bubble_and_a_tensor_group_for_its_link() -> None:
    shape, near = known("llama-2-7b", 64), described("h100-80g", gpus=8)

    def piped(count: int) -> float:
        return step_seconds(shape, Layout(4, 1, count, pipeline=4), near)

    assert piped(8) / piped(4) == pytest.approx(11 / 7, rel=1e-3)
    slow = near.model_copy(update={"link_gbs": near.link_gbs / 10})
    cut = Layout(8, 1, 4, tensor=8)
    assert step_seconds(shape, cut, slow) > step_seconds(shape, cut, near)


def test_what_is_asked_for_is_kept_and_said() -> None:
    plan = make_plan(CPU, shape_of("glm"), batch_size=16, splits=True, tensor=2)
    assert (plan.tensor, plan.pipeline, plan.ranks, plan.copies, plan.global_batch) == (2, 1, 2, 1, 16)
    assert any(reason.startswith("tensor 2: each layer over 2 ranks of a node, 1 copy") for reason in plan.reasons)
    piped = make_plan(CPU, shape_of("glm"), batch_size=16, splits=True, pipeline=2, micro_batch=4)
    assert (piped.pipeline, piped.micro_batch, piped.accumulation) == (2, 4, 4)
    assert layout_of(piped).kind == "pipeline 2"


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"tensor": 2, "zero_stage": 1}, "it goes with plan.zero_stage = 0 alone"),
        ({"tensor": 2, "splits": False}, "only a causal language model whose weights are all trained can be cut"),
        ({"tensor": 2, "pipeline": 2}, "2 x 2 ranks are more than the 2 there are"),
        ({"pipeline": 2, "micro_batch": 16}, "each copy needs 2 micro-batches or more"),
    ],
)
def test_what_cannot_run_is_refused_in_one_line(asked: dict[str, Any], why: str) -> None:
    with pytest.raises(UsageError, match=why):
        make_plan(CPU, shape_of("glm"), **{"batch_size": 16, "splits": True, **asked})


def test_a_plan_of_whole_models_is_written_as_before() -> None:
    plan = make_plan(CPU, shape_of("glm"), batch_size=16)
    assert not {"tensor", "pipeline"} & plan.model_dump().keys()
    cut = make_plan(CPU, shape_of("glm"), batch_size=16, splits=True, tensor=2)
    assert ParallelPlan.model_validate_json(cut.to_json()) == cut
    assert cut.model_dump()["tensor"] == 2
