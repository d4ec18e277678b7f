"""A transformers config in, the model's shape out, with its parameters counted to the last one. Pure: no torch, no transformers.

Each family is its differences from a Llama layer; what a config.json leaves out is what transformers 5 takes for it. A test builds
every family on torch's meta device and compares the counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from autoglm_ops.contracts.training import ModelShape
from autoglm_ops.errors import BadData, UsageError

Config = Mapping[str, Any]
Task = Literal["classification", "causal-lm"]


@dataclass(frozen=True)
class Family:
    """One `model_type`. A bias is True, False, or the name of the key that says it; so is `qk_norm`."""

    defaults: Mapping[str, Any] = field(default_factory=dict)
    norms: int = 2
    qkv_bias: bool | str = False
    out_bias: bool | str = False
    mlp_bias: bool | str = False
    qk_norm: bool | str = False
    fused_gate: bool = False
    tasks: tuple[Task, ...] = ("classification", "causal-lm")


_GLM = {"num_key_value_heads": 2, "head_dim": 128, "attention_bias": True}
FAMILIES: dict[str, Family] = {
    "bert": Family({"max_position_embeddings": 512, "type_vocab_size": 2}, tasks=("classification",)),
    "glm": Family(_GLM, qkv_bias="attention_bias", fused_gate=True),
    "glm4": Family(_GLM, norms=4, qkv_bias="attention_bias", fused_gate=True),
    "glm4_moe": Family(
        {"num_key_value_heads": 8, "n_shared_experts": 1, "first_k_dense_replace": 1, "num_experts_per_tok": 8},
        qkv_bias="attention_bias",
        qk_norm="use_qk_norm",
        tasks=("causal-lm",),
    ),
    "llama": Family(qkv_bias="attention_bias", out_bias="attention_bias", mlp_bias="mlp_bias"),
    "mistral": Family({"num_key_value_heads": 8}),
    "qwen2": Family(qkv_bias=True),
    "qwen2_moe": Family({"qkv_bias": True, "num_experts_per_tok": 4, "decoder_sparse_step": 1}, qkv_bias="qkv_bias"),
    "qwen3": Family({"head_dim": 128}, qkv_bias="attention_bias", out_bias="attention_bias", qk_norm=True),
    "qwen3_moe": Family(
        {"num_experts_per_tok": 8, "decoder_sparse_step": 1},
        qkv_bias="attention_bias",
        out_bias="attention_bias",
        qk_norm=True,
    ),
}


def shape_of_config(config: Config, *, task: Task, max_length: int, labels: int = 2) -> ModelShape:
    """The shape of `config` under a head for `task`, on rows of `max_length` tokens.

    Raises UsageError for a family or a task that has no formula here, BadData for a config that contradicts itself.
    """
    family = _family(config, task)
    config = {**family.defaults, **config}
    if config["model_type"] == "bert":
        return _bert(config, max_length, labels)
    layer = _Layer(config, family)
    sparse = _sparse_layers(config)
    dense = layer.layers - sparse
    hidden, vocabulary = layer.hidden, _number(config, "vocab_size")
    experts = _Experts(config, hidden) if sparse else None
    body = layer.layers * layer.attention + dense * layer.mlp + hidden
    kept = experts.parameters if experts else 0
    passed = experts.active if experts else 0
    tied = bool(config.get("tie_word_embeddings", False))
    outputs = vocabulary if task == "causal-lm" else labels
    reads_last = task == "classification" and config["model_type"] == "glm" and layer.layers == 1
    head = 0 if task == "causal-lm" and tied else outputs * hidden
    return ModelShape(
        parameters=vocabulary * hidden + body + sparse * kept + head,
        active_parameters=vocabulary * hidden + body + sparse * passed + head,
        hidden_size=hidden,
        intermediate_size=layer.inner,
        layers=layer.layers,
        heads=layer.heads,
        max_length=max_length,
        family=str(config["model_type"]),
        query_width=layer.query,
        kv_width=layer.kv,
        vocabulary=vocabulary,
        outputs=outputs,
        scored=1 if reads_last else max_length,  # every position goes through the head, also in transformers' classifiers
        reads_last=reads_last,
        tied=tied and task == "causal-lm",
        vectors=layer.layers * layer.vectors + hidden,
        norm_width=layer.norm_width,
        scores=bool(config.get("attention_dropout")),
        largest_module=max(
            vocabulary * hidden, layer.widest if dense else 0, experts.block if experts else 0, hidden * layer.query
        ),
        experts=experts.count if experts else 0,
        expert_layers=sparse,
        expert_width=experts.width if experts else 0,
    )


class _Layer:
    """A decoder layer without its experts."""

    def __init__(self, config: Config, family: Family) -> None:
        hidden = self.hidden = _number(config, "hidden_size")
        self.layers, self.heads = _number(config, "num_hidden_layers"), _number(config, "num_attention_heads")
        self.inner = _number(config, "intermediate_size")
        even = None if config.get("head_dim") is not None else _whole(hidden, self.heads, "hidden_size", "num_attention_heads")
        size = even or _number(config, "head_dim")
        kv_heads = self.heads if config.get("num_key_value_heads") is None else _number(config, "num_key_value_heads")
        _whole(self.heads, kv_heads, "num_attention_heads", "num_key_value_heads")
        self.query, self.kv = self.heads * size, kv_heads * size
        qkv = _says(config, family.qkv_bias) * (self.query + 2 * self.kv)
        biases = qkv + _says(config, family.out_bias) * hidden
        norms = family.norms * hidden + _says(config, family.qk_norm) * 2 * size
        self.norm_width = family.norms * hidden + _says(config, family.qk_norm) * (self.query + self.kv)
        mlp_bias = _says(config, family.mlp_bias) * (2 * self.inner + hidden)
        self.vectors = biases + norms + mlp_bias
        self.attention = 2 * hidden * (self.query + self.kv) + biases + norms
        self.mlp = 3 * hidden * self.inner + mlp_bias
        self.widest = (2 if family.fused_gate else 1) * hidden * self.inner


class _Experts:
    """The feed-forward of a sparse layer: router, experts, and what every token passes beside them."""

    def __init__(self, config: Config, hidden: int) -> None:
        size = _number(config, "moe_intermediate_size")
        self.count = _number(config, "n_routed_experts" if config["model_type"] == "glm4_moe" else "num_experts")
        chosen = _number(config, "num_experts_per_tok")
        shared, gate = 0, 0
        if config["model_type"] == "glm4_moe":
            shared = size * _number(config, "n_shared_experts", least=0)
        if config["model_type"] == "qwen2_moe":
            shared, gate = _number(config, "shared_expert_intermediate_size"), hidden
        if chosen > self.count:
            raise BadData(f"config.json: num_experts_per_tok = {chosen} of only {self.count} experts; a token cannot take more")
        always = self.count * hidden + 3 * hidden * shared + gate
        self.block = self.count * 3 * hidden * size
        self.parameters = always + self.block
        self.active = always + chosen * 3 * hidden * size
        self.width = chosen * size + shared


def _bert(config: Config, max_length: int, labels: int) -> ModelShape:
    """BertForSequenceClassification: biases everywhere, LayerNorm, learned positions, a pooler."""
    hidden, inner = _number(config, "hidden_size"), _number(config, "intermediate_size")
    layers, heads, vocabulary = (_number(config, key) for key in ("num_hidden_layers", "num_attention_heads", "vocab_size"))
    _whole(hidden, heads, "hidden_size", "num_attention_heads")
    positions, kinds = _number(config, "max_position_embeddings"), _number(config, "type_vocab_size")
    if max_length > positions:
        raise UsageError(f"rows of {max_length} tokens are longer than the {positions} positions this BERT has; shorten them")
    vectors = layers * (9 * hidden + inner) + 3 * hidden + labels
    tables = (vocabulary + positions + kinds) * hidden
    matrices = layers * (4 * hidden * hidden + 2 * hidden * inner) + hidden * hidden + hidden * labels
    return ModelShape(
        parameters=tables + matrices + vectors,
        active_parameters=tables + matrices + vectors,
        hidden_size=hidden,
        intermediate_size=inner,
        layers=layers,
        heads=heads,
        max_length=max_length,
        family="bert",
        query_width=hidden,
        kv_width=hidden,
        vocabulary=vocabulary,
        outputs=labels,
        gated=False,
        vectors=vectors,
        norm_width=2 * hidden,
        scores=bool(config.get("attention_probs_dropout_prob", 0.1)),
        largest_module=max(vocabulary * hidden, hidden * inner),
    )


def _family(config: Config, task: Task) -> Family:
    name = config.get("model_type")
    if not isinstance(name, str) or name not in FAMILIES:
        raise UsageError(
            f"config.json: model_type = {name!r} has no formula here; the planner knows {', '.join(sorted(FAMILIES))}"
        )
    if task not in FAMILIES[name].tasks:
        raise UsageError(f"transformers has no {name} for the task {task}; it has one for {', '.join(FAMILIES[name].tasks)}")
    return FAMILIES[name]


def _sparse_layers(config: Config) -> int:
    layers = _number(config, "num_hidden_layers")
    if config["model_type"] == "glm4_moe":
        return max(0, layers - _number(config, "first_k_dense_replace", least=0))
    if not config["model_type"].endswith("_moe"):
        return 0
    dense, step = config.get("mlp_only_layers") or [], _number(config, "decoder_sparse_step")
    if not isinstance(dense, list | tuple):
        raise BadData(f"config.json: mlp_only_layers = {dense!r} must be a list of layer numbers")
    return sum(place not in dense and (place + 1) % step == 0 for place in range(layers))


def _says(config: Config, rule: bool | str) -> bool:
    return bool(config.get(rule, False)) if isinstance(rule, str) else rule


def _number(config: Config, key: str, *, least: int = 1) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise BadData(f"config.json: {key} = {value!r} must be a whole number of at least {least}")
    return value


def _whole(number: int, parts: int, what: str, by: str) -> int:
    if number % parts:
        raise BadData(f"config.json: {what} = {number} is not divisible by {by} = {parts}; a head's size must be whole")
    return number // parts
