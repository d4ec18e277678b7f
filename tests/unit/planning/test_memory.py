"""The memory model against figures others published. What it says of our own trainer is measured in benchmarks/bench_memory.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.training import HardwareSpec, ModelShape
from autoglm_ops.planning import MODELS, Layout, estimate, shape_of_config, usable_bytes
from autoglm_ops.planning.memory import activation_bytes

STATES = ("weights", "gradients", "optimizer")


def states(parameters: int, ranks: int, stage: Any, precision: Any = "bf16") -> float:
    shape = ModelShape(parameters=parameters, hidden_size=64, intermediate_size=64, layers=1, heads=1, max_length=1)
    memory = estimate(shape, Layout(ranks, 1, zero_stage=stage, precision=precision))
    return sum(memory[part] for part in STATES) / 1e9


@pytest.mark.parametrize(("stage", "gigabytes"), [(0, 120.0), (1, 31.4), (2, 16.6), (3, 1.9)])
def test_the_zero_papers_figure_1(stage: int, gigabytes: float) -> None:
    """7.5 B parameters on 64 ranks, mixed-precision Adam (arXiv 1910.02054, figure 1)."""
    assert states(7_500_000_000, 64, stage) == pytest.approx(gigabytes, abs=0.05)


@pytest.mark.parametrize(
    ("billions", "ranks", "stages"),
    [(128, 1, (2048, 2048, 2048)), (128, 64, (536, 288, 32)), (7.5, 4, (52.5, 41.3, 30)), (1000, 1024, (4011, 2013, 15.6))],
)
def test_the_zero_papers_table_1(billions: float, ranks: int, stages: tuple[float, ...]) -> None:
    """Rows of the paper's table 1, in GB, for stages 1, 2 and 3."""
    found = [states(int(billions * 1e9), ranks, stage) for stage in (1, 2, 3)]
    assert found == pytest.approx(stages, rel=0.02)  # the paper rounds 284 to 288


def test_mixed_precision_adam_takes_16_bytes_a_parameter_as_fp32_does_alone() -> None:
    assert states(10**9, 1, 0) == states(10**9, 1, 0, "fp32") == 16


@pytest.mark.parametrize(
    ("model", "ranks", "gigabytes"),
    [("llama-2-7b", 8, 13.5), ("glm-4-9b", 8, 18.8), ("llama-2-70b", 64, 17.2), ("llama-2-70b", 16, 69.0)],
)
def test_stage_3_shards_the_16_bytes_of_7b_9b_and_70b(model: str, ranks: int, gigabytes: float) -> None:
    shape = shape_of_config(MODELS[model], task="causal-lm", max_length=4096)
    memory = estimate(shape, Layout(ranks, 1, zero_stage=3, checkpointing=True))
    assert sum(memory[part] for part in STATES) / 1e9 == pytest.approx(gigabytes, rel=0.01)


def gpt(hidden: int, heads: int, length: int, **more: Any) -> ModelShape:
    """A layer as Korthikanti et al. count it: LayerNorm, plain feed-forward four times as wide."""
    return ModelShape(
        parameters=12 * hidden**2, hidden_size=hidden, intermediate_size=4 * hidden, layers=1, heads=heads, max_length=length,
        gated=False, **more,
    )  # fmt: skip


@pytest.mark.parametrize(("hidden", "heads", "ratio"), [(12288, 96, 80), (20480, 128, 64)], ids=["gpt-3-175b", "mt-nlg-530b"])
def test_activations_are_korthikantis(hidden: int, heads: int, ratio: int) -> None:
    """arXiv 2205.05198, equation 1: sbh(34 + 5as/h) a layer, with 5as/h = 80 for GPT-3 and 64 for MT-NLG at s = 2048."""
    layout = Layout(1, 1, precision="fp16", device="cpu")
    ends = 10 * hidden * 2048
    fused = activation_bytes(gpt(hidden, heads, 2048), layout) - ends
    assert fused == 34 * hidden * 2048
    assert activation_bytes(gpt(hidden, heads, 2048, scores=True), layout) - ends == (34 + ratio) * hidden * 2048


def test_checkpointing_keeps_two_bytes_a_value_of_each_layers_input() -> None:
    """The paper's full recomputation: 2sbhL, and one layer whole while it is computed again."""
    shape = shape_of_config(MODELS["glm-4-9b"], task="causal-lm", max_length=2048)
    one = activation_bytes(shape.model_copy(update={"layers": 1}), Layout(1, 1, checkpointing=True))
    more = activation_bytes(shape, Layout(1, 1, checkpointing=True)) - one
    assert more == 2 * 2048 * 4096 * 39


def test_experts_cost_weights_but_not_activations() -> None:
    shape = shape_of_config(MODELS["glm-4.5-air"], task="causal-lm", max_length=512)
    dense = shape.model_copy(update={"expert_layers": 0, "intermediate_size": 9 * 1408})
    few, all_of = (activation_bytes(item, Layout(1, 1)) for item in (shape, dense))
    assert few == pytest.approx(all_of, rel=0.01)


def test_a_classifier_that_reads_its_last_token_keeps_keys_and_values_and_little_else() -> None:
    """Checkpointing is of whole layers. What is kept of each distinct token is bounded by the vocabulary."""
    config = {"model_type": "glm", "vocab_size": 500, "hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 1,
              "num_attention_heads": 4, "num_key_value_heads": 4, "head_dim": 32}  # fmt: skip
    short = shape_of_config(config, task="classification", max_length=128)
    assert short.reads_last and not shape_of_config(config, task="causal-lm", max_length=128).reads_last
    assert not shape_of_config({**config, "num_hidden_layers": 2}, task="classification", max_length=128).reads_last
    long = short.model_copy(update={"reads_last": False, "scored": 128})
    plain, again = Layout(1, 32, precision="fp32"), Layout(1, 32, precision="fp32", checkpointing=True)
    assert activation_bytes(short, plain) < activation_bytes(long, plain) / 5
    assert activation_bytes(short, again) == activation_bytes(long, again)
    more = activation_bytes(short, Layout(1, 64, precision="fp32")) - activation_bytes(short, plain)
    assert more == pytest.approx(32 * 128 * 2 * 128 * 4, rel=0.1), "keys and values alone: the words are the same"


@given(
    stage=st.integers(0, 3), ranks=st.integers(1, 64), micro=st.integers(1, 64), again=st.booleans(), more=st.booleans(),
    precision=st.sampled_from(["fp32", "bf16"]),
)  # fmt: skip
def test_more_of_anything_needs_more(stage: Any, ranks: int, micro: int, again: bool, more: bool, precision: Any) -> None:
    shape = shape_of_config(MODELS["smollm2-135m"], task="causal-lm", max_length=256)
    layout = Layout(ranks, micro, 2 if more else 1, stage, precision, checkpointing=again)
    larger = Layout(ranks, micro + 1, 2 if more else 1, stage, precision, checkpointing=again)
    wider = Layout(ranks + 1, micro, 2 if more else 1, stage, precision, checkpointing=again)
    assert estimate(shape, larger)["total"] >= estimate(shape, layout)["total"]
    if ranks > 1:
        assert estimate(shape, wider)["total"] <= estimate(shape, layout)["total"]


def test_ranks_of_a_cpu_share_its_memory_and_a_gpu_has_its_own() -> None:
    assert usable_bytes(HardwareSpec(cpus=2, memory_gib=20), 2) == 8 << 30
    assert usable_bytes(HardwareSpec(cpus=2, memory_gib=20, gpus=2, gpu_memory_gib=10), 2) == 8 << 30
