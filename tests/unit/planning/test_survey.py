"""Every kind of plan is shown or refused with a number; the batch is exact; the order follows the links."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.contracts.training import HardwareSpec, PlanSurvey
from autoglm_ops.errors import UsageError
from autoglm_ops.planning import GPUS, MODELS, Choice, Layout, changes, described, kind_of, shape_of_config, survey
from autoglm_ops.planning.speed import step_flops, step_seconds

KINDS = 4 * 2 + 3 * 2 + 2  # stages by checkpointing; 1 to 3 with the optimizer offloaded; 3 with everything


def look(model: str, hardware: HardwareSpec, batch: int = 64, length: int = 1024) -> PlanSurvey:
    shape = shape_of_config(MODELS[model], task="causal-lm", max_length=length)
    return survey(model, "causal-lm", shape, hardware, batch_size=batch)


@settings(max_examples=40)
@given(
    model=st.sampled_from(["smollm2-135m", "glm-4-9b", "llama-2-70b"]),
    gpu=st.sampled_from(GPUS),
    gpus=st.integers(1, 8),
    nodes=st.integers(1, 4),
    batch=st.integers(1, 200),
)
def test_every_plan_keeps_the_batch_and_its_memory_and_no_kind_is_left_unsaid(
    model: str, gpu: str, gpus: int, nodes: int, batch: int
) -> None:
    found = look(model, described(gpu, gpus=gpus, nodes=nodes), batch, 512)
    for plan in found.plans:
        assert plan.global_batch == batch
        assert plan.fits
        assert plan.memory_bytes["total"] <= plan.memory_bytes["usable"]
        assert plan.ranks <= gpus * nodes
    assert [plan.step_seconds for plan in found.plans] == sorted(plan.step_seconds for plan in found.plans)
    refused = {line.partition(": ")[0] for line in found.why_not if line.startswith("ZeRO")}
    shown = {kind_of(plan) for plan in found.plans if not plan.split}
    assert not refused & shown
    assert len(refused | shown) == KINDS - (0 if any(r > 1 for r in _degrees(gpus, nodes, batch)) else 6)
    assert found.why_not[-1].startswith("tensor or pipeline with ZeRO 1 to 3 or offload")


def _degrees(gpus: int, nodes: int, batch: int) -> list[int]:
    return [size for size in range(1, gpus * nodes + 1) if batch % size == 0 and (size <= gpus or size % gpus == 0)]


def test_a_9b_on_one_gpu_says_why_it_is_not_replicated_and_offloads() -> None:
    found = look("glm-4-9b", described("h100-80g", gpus=1))
    assert found.plans[0].offload == "optimizer"
    assert any(line.startswith("ZeRO 0: needs ") and "optimizer alone 105.1" in line for line in found.why_not)


def test_a_70b_on_a_4090_fits_nowhere_and_every_kind_says_so() -> None:
    found = look("llama-2-70b", described("4090", gpus=1))
    assert not found.fits
    assert len(found.why_not) > 4
    assert all(" GiB of " in line for line in found.why_not[:-1])


def test_whole_models_built_by_every_rank_must_fit_the_host() -> None:
    """70 B are 257 GiB in fp32: eight ranks of a host with 2 TiB build more than it may hold."""
    found = look("llama-2-70b", described("h100-80g", gpus=8, nodes=8))
    assert {plan.ranks for plan in found.plans} == {4}
    one = found.hardware.model_copy(update={"nodes": 1, "memory_gib": 256})
    assert any("of the host's" in line for line in look("llama-2-70b", one).why_not)


def test_a_slow_network_keeps_the_messages_in_the_node() -> None:
    near = described("h100-80g", gpus=8, nodes=2)
    far = near.model_copy(update={"network_gbs": 0.1})
    assert look("smollm2-135m", near, 4096).plans[0].ranks == 16
    assert look("smollm2-135m", far, 16).plans[0].ranks == 8


def test_step_flops_are_six_a_weight_and_token_and_a_third_more_when_computed_again() -> None:
    shape = shape_of_config(MODELS["llama-2-7b"], task="causal-lm", max_length=4096)
    flops = step_flops(shape, Layout(1, 1))
    assert flops == pytest.approx(6 * 6.6e9 * 4096 + 12 * 32 * 4096 * 4096 * 4096, rel=0.01)
    assert step_flops(shape, Layout(1, 1, checkpointing=True)) == pytest.approx(flops * 4 / 3)
    air = shape_of_config(MODELS["glm-4.5-air"], task="causal-lm", max_length=1)
    assert step_flops(air, Layout(1, 1)) < 0.2 * 6 * air.parameters


def test_stage_3_talks_half_as_much_again_and_every_micro_batch() -> None:
    """ZeRO paper, section 7.2: 3 volumes against 2."""
    shape = shape_of_config(MODELS["llama-2-7b"], task="causal-lm", max_length=64)
    slow = described("l40s", gpus=8)

    def talks(stage: int, accumulation: int) -> float:
        alone = Layout(1, 1, accumulation)
        return step_seconds(shape, Layout(8, 1, accumulation, stage), slow) - step_seconds(shape, alone, slow)  # type: ignore[arg-type]

    assert talks(3, 1) == pytest.approx(1.5 * talks(0, 1), rel=1e-3)
    assert talks(3, 4) == pytest.approx(6 * talks(0, 4), rel=1e-3)
    assert talks(2, 4) == pytest.approx(2.5 * talks(1, 4), rel=1e-3)


def test_what_changed_is_said_and_what_did_not_is_not() -> None:
    one, eight = (look("glm-4-9b", described("h100-80g", gpus=count)) for count in (1, 8))
    assert changes(None, one) == changes(one, one) == []
    said = changes(one, eight)
    assert said[0] == "hardware: 1 x 1 h100-80g -> 1 x 8 h100-80g"
    assert not [line for line in said if line.startswith(("parameters", "batch", "task"))]


def test_what_is_fixed_is_kept() -> None:
    shape = shape_of_config(MODELS["smollm2-135m"], task="causal-lm", max_length=64)
    cpu = HardwareSpec(cpus=4, memory_gib=32)
    found = survey("m", "causal-lm", shape, cpu, batch_size=8, choice=Choice(ranks=2, micro_batch=2, zero_stage=2))
    assert [(plan.ranks, plan.micro_batch, plan.accumulation, plan.zero_stage) for plan in found.plans] == [(2, 2, 2, 2)]
    with pytest.raises(UsageError, match="fp16' needs a GPU"):
        survey("m", "causal-lm", shape, cpu, batch_size=8, precision="fp16")


def test_a_gpu_nobody_described_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match="'h1000' is not known; choose from a100-40g"):
        described("h1000", gpus=1)
