"""Parameters are counted to the last one: against transformers' own modules on the meta device, and against what makers publish."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.errors import AutoGLMError, BadData, UsageError
from autoglm_ops.planning.presets import MODELS
from autoglm_ops.planning.shapes import FAMILIES, shape_of_config

SMALL = {
    "vocab_size": 96,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
EXPERTS = {"moe_intermediate_size": 24, "num_experts_per_tok": 2}
CONFIGS: list[dict[str, Any]] = [
    {"model_type": "glm", "head_dim": 8},
    {"model_type": "glm", "head_dim": 16, "attention_bias": False, "tie_word_embeddings": True},
    {"model_type": "glm4", "head_dim": 8},
    {"model_type": "glm4_moe", "head_dim": 16, "n_routed_experts": 4, "n_shared_experts": 2, **EXPERTS},
    {"model_type": "glm4_moe", "n_routed_experts": 4, "use_qk_norm": True, "first_k_dense_replace": 2, **EXPERTS},
    {"model_type": "llama"},
    {"model_type": "llama", "num_key_value_heads": None, "attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    {"model_type": "mistral", "head_dim": 8},
    {"model_type": "qwen2", "tie_word_embeddings": True},
    {"model_type": "qwen2_moe", "num_experts": 4, "shared_expert_intermediate_size": 40, "mlp_only_layers": [0], **EXPERTS},
    {"model_type": "qwen3", "head_dim": 16},
    {"model_type": "qwen3_moe", "num_experts": 4, "decoder_sparse_step": 2, "head_dim": 8, **EXPERTS},
    {"model_type": "bert", "max_position_embeddings": 64},
]


def built(config: dict[str, Any], task: str, labels: int) -> Any:
    """transformers' module for `config`, with shapes and no memory."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification

    kind = AutoModelForCausalLM if task == "causal-lm" else AutoModelForSequenceClassification
    made = AutoConfig.for_model(**config, num_labels=labels, pad_token_id=0)
    with torch.device("meta"):
        return kind.from_config(made)


def test_every_family_is_built_below() -> None:
    assert {config["model_type"] for config in CONFIGS} == set(FAMILIES)


@pytest.mark.parametrize("extra", CONFIGS, ids=lambda extra: "-".join(map(str, extra.values()))[:40])
def test_the_count_is_that_of_transformers(extra: dict[str, Any]) -> None:
    config = {**SMALL, **extra}
    for task in FAMILIES[config["model_type"]].tasks:
        shape = shape_of_config(config, task=task, max_length=16, labels=5)
        module = built(config, task, 5)
        parameters = list(module.parameters())
        assert shape.parameters == sum(parameter.numel() for parameter in parameters)
        assert shape.vectors == sum(parameter.numel() for parameter in parameters if parameter.dim() == 1)
        owned = (sum(p.numel() for p in part.parameters(recurse=False)) for part in module.modules())
        assert shape.largest_module == max(owned)


PUBLISHED = {
    "glm-4-9b": (9_399_951_360, 9_399_951_360),
    "glm-4-9b-0414": (9_400_279_040, 9_400_279_040),
    "llama-2-7b": (6_738_415_616, 6_738_415_616),
    "llama-2-70b": (68_976_648_192, 68_976_648_192),
    "qwen3-30b-a3b": (30_532_122_624, 3_346_000_000),
    "smollm2-135m": (134_515_008, 134_515_008),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_counts(name: str) -> None:
    total, active = PUBLISHED[name]
    shape = shape_of_config(MODELS[name], task="causal-lm", max_length=128)
    assert shape.parameters == total
    assert shape.active_parameters == pytest.approx(active, rel=0.01)


def test_bert_base_has_its_110_million_and_glm_4_5_air_its_106_billion_with_12_active() -> None:
    bert = shape_of_config(MODELS["bert-base"], task="classification", max_length=128, labels=2)
    assert bert.parameters == 109_482_240 + 2 * 768 + 2
    air = shape_of_config(MODELS["glm-4.5-air"], task="causal-lm", max_length=128)
    assert air.parameters == pytest.approx(106e9, rel=0.01)
    assert air.active_parameters == pytest.approx(12e9, rel=0.15)


@pytest.mark.parametrize(
    ("change", "task", "error", "said"),
    [
        (
            {"model_type": "gpt2"},
            "causal-lm",
            UsageError,
            "model_type = 'gpt2' has no formula here; the planner knows bert, glm",
        ),
        ({"model_type": "bert"}, "causal-lm", UsageError, "no bert for the task causal-lm"),
        ({"model_type": "glm4_moe"}, "classification", UsageError, "no glm4_moe for the task classification"),
        ({"model_type": "llama", "hidden_size": "32"}, "causal-lm", BadData, "hidden_size = '32' must be a whole number"),
        ({"model_type": "llama", "num_attention_heads": 5}, "causal-lm", BadData, "hidden_size = 32 is not divisible"),
        (
            {"model_type": "glm4_moe", "n_routed_experts": 2, **EXPERTS, "num_experts_per_tok": 3},
            "causal-lm",
            BadData,
            "of only 2",
        ),
        ({"model_type": "bert", "max_position_embeddings": 8}, "classification", UsageError, "longer than the 8 positions"),
    ],
)
def test_a_config_that_cannot_be_counted_says_why(change: dict[str, Any], task: Any, error: type, said: str) -> None:
    with pytest.raises(error, match=said):
        shape_of_config({**SMALL, **change}, task=task, max_length=16)


_WRONG = st.one_of(st.none(), st.integers(-3, 3), st.text(max_size=3), st.floats(), st.booleans(), st.lists(st.integers()))


@settings(max_examples=200)
@given(extra=st.sampled_from(CONFIGS), key=st.sampled_from([*SMALL, "model_type", "head_dim", *EXPERTS]), value=_WRONG)
def test_no_config_gives_a_traceback(extra: dict[str, Any], key: str, value: object) -> None:
    config = {**SMALL, **extra, key: value}
    with suppress(AutoGLMError):
        assert shape_of_config(config, task="causal-lm", max_length=16).parameters > 0
