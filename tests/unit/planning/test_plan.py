"""Every plan covers the global batch exactly, fits when it says so, and gives its reasons."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.training import HardwareSpec, ModelShape
from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.planning import deepspeed_config, described, make_plan, refuse_unless_fits

PARTS = ("weights", "gradients", "optimizer", "activations", "temporary", "buffers")
LAPTOP = HardwareSpec(cpus=2, memory_gib=16)
SMALL = ModelShape(parameters=1_000_000, hidden_size=128, intermediate_size=256, layers=2, heads=4, max_length=128)
LARGE = ModelShape(parameters=9_000_000_000, hidden_size=4096, intermediate_size=13696, layers=40, heads=32, max_length=128)


def gpus(count: int, gib: int = 80) -> HardwareSpec:
    return HardwareSpec(cpus=64, memory_gib=512, gpus=count, gpu_memory_gib=gib)


def test_two_cores_are_two_replicated_ranks_with_a_reason_each() -> None:
    plan = make_plan(LAPTOP, SMALL, batch_size=64)
    assert (plan.ranks, plan.micro_batch, plan.accumulation, plan.zero_stage) == (2, 32, 1, 0)
    assert (plan.device, plan.precision, plan.threads_per_rank, plan.fits) == ("cpu", "fp32", 1, True)
    assert [reason.split()[0] for reason in plan.reasons] == ["precision", "ranks", "ZeRO", "micro-batch"]


@given(batch=st.integers(1, 300), cpus=st.integers(1, 64), count=st.integers(0, 16), gib=st.integers(1, 80))
def test_the_global_batch_is_kept_exactly(batch: int, cpus: int, count: int, gib: int) -> None:
    hardware = HardwareSpec(cpus=cpus, memory_gib=gib, gpus=count, gpu_memory_gib=gib if count else 0)
    plan = make_plan(hardware, SMALL, batch_size=batch)
    assert plan.global_batch == batch
    assert plan.ranks <= (count or min(2, cpus))
    parts = [plan.memory_bytes[part] for part in PARTS]
    assert max(parts) <= plan.memory_bytes["total"] <= sum(parts)
    assert plan.fits == (plan.memory_bytes["total"] <= plan.memory_bytes["usable"])


def test_an_odd_batch_takes_fewer_ranks_and_says_why() -> None:
    plan = make_plan(LAPTOP, SMALL, batch_size=63)
    assert plan.ranks == 1
    assert any("63 is not divisible by 2" in reason for reason in plan.reasons)


@pytest.mark.parametrize(
    ("fixed", "said"),
    [
        ({"ranks": 3}, "batch_size = 64 is not divisible by plan.ranks = 3"),
        ({"micro_batch": 5}, "plan.micro_batch = 5 does not divide the 32 rows"),
        ({"precision": "fp16"}, "needs a GPU"),
    ],
)
def test_a_contradiction_is_a_usage_error(fixed: dict[str, object], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make_plan(LAPTOP, SMALL, batch_size=64, **fixed)  # type: ignore[arg-type]


def test_what_is_fixed_is_kept() -> None:
    plan = make_plan(LAPTOP, SMALL, batch_size=64, ranks=1, micro_batch=8, zero_stage=2)
    assert (plan.ranks, plan.micro_batch, plan.accumulation, plan.zero_stage) == (1, 8, 8, 2)
    assert sum("fixed by plan." in reason for reason in plan.reasons) == 3


def test_states_are_sharded_only_as_far_as_memory_asks() -> None:
    stages = [make_plan(gpus(8, gib), LARGE, batch_size=64).zero_stage for gib in (640, 144, 60, 34)]
    assert stages[0] == 0
    assert stages == sorted(stages)
    assert stages[-1] == 3


def test_activations_that_do_not_fit_become_accumulation() -> None:
    plan = make_plan(HardwareSpec(cpus=2, memory_gib=1), SMALL.model_copy(update={"max_length": 1024}), batch_size=64)
    assert plan.fits
    assert plan.accumulation > 1


def test_a_plan_that_does_not_fit_is_refused_with_the_numbers() -> None:
    plan = make_plan(LAPTOP, LARGE, batch_size=64)
    assert not plan.fits
    with pytest.raises(Refused, match=r"does-not-fit: a rank needs \d+\.\d+ GiB \(.*optimizer .*may use 6\.40 GiB"):
        refuse_unless_fits(plan)


def test_the_deepspeed_config_says_the_plan_and_compiles_nothing_on_cpu() -> None:
    plan = make_plan(LAPTOP, SMALL, batch_size=64, micro_batch=8)
    config = deepspeed_config(plan, learning_rate=1e-3, weight_decay=0.1, gradient_clip=1.0)
    assert config["train_batch_size"] == 64 == plan.ranks * 8 * config["gradient_accumulation_steps"]
    assert config["optimizer"]["params"]["torch_adam"] is True
    assert config["bf16"]["enabled"] is config["fp16"]["enabled"] is False
    assert deepspeed_config(make_plan(gpus(2), SMALL, batch_size=64), learning_rate=1, weight_decay=0, gradient_clip=1)["bf16"][
        "enabled"
    ]


def test_deepspeed_gets_the_buffers_that_the_estimate_counts_on() -> None:
    config = deepspeed_config(make_plan(LAPTOP, SMALL, batch_size=64), learning_rate=1, weight_decay=0, gradient_clip=1)
    assert config["zero_optimization"] == {"stage": 0, "overlap_comm": False}
    sharded = make_plan(LAPTOP, SMALL, batch_size=64, zero_stage=3)
    zero = deepspeed_config(sharded, learning_rate=1, weight_decay=0, gradient_clip=1)["zero_optimization"]
    assert zero["stage3_max_live_parameters"] <= SMALL.parameters
    assert zero["reduce_bucket_size"] == SMALL.parameters  # DeepSpeed's own is 5e8: 2 GB for a model of 4 MB


@pytest.mark.parametrize(
    ("offload", "keys"), [("optimizer", {"offload_optimizer"}), ("parameters", {"offload_optimizer", "offload_param"})]
)
def test_an_offload_is_said_to_deepspeed_and_compiles_nothing(offload: str, keys: set[str]) -> None:
    plan = make_plan(gpus(2), SMALL, batch_size=64, zero_stage=3).model_copy(update={"offload": offload})
    config = deepspeed_config(plan, learning_rate=1, weight_decay=0, gradient_clip=1)
    assert {key for key in config["zero_optimization"] if key.startswith("offload")} == keys
    assert config["optimizer"]["params"]["torch_adam"] is True
    assert config["zero_force_ds_cpu_optimizer"] is False


def test_two_nodes_share_their_batch_when_the_network_carries_it() -> None:
    wide = described("h100-80g", gpus=8, nodes=2)
    assert make_plan(wide, LARGE, batch_size=512).ranks == 16
    with pytest.raises(UsageError, match="has 16 GPUs"):
        make_plan(wide, LARGE, batch_size=64, ranks=32)


def test_what_fits_no_other_way_is_computed_again() -> None:
    """A row whose activations alone are too many: layers computed again, said with its reason, and DeepSpeed's ranks apply it."""
    from autoglm_ops.planning import MODELS, shape_of_config

    shape = shape_of_config(MODELS["smollm2-135m"], task="causal-lm", max_length=8192)
    plan = make_plan(HardwareSpec(cpus=2, memory_gib=16), shape, batch_size=2)
    assert plan.fits
    assert plan.checkpointing
    assert plan.reasons[-1].startswith("activation checkpointing")
    short = make_plan(
        HardwareSpec(cpus=2, memory_gib=16),
        shape_of_config(MODELS["smollm2-135m"], task="causal-lm", max_length=64),
        batch_size=2,
    )
    assert not short.checkpointing
