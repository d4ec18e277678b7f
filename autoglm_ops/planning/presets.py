"""Models and GPUs by name, as their makers publish them. Nothing is asked of a hub: these are configuration values, not weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from autoglm_ops.contracts.training import HardwareSpec
from autoglm_ops.errors import UsageError

_GLM_9B = {
    "vocab_size": 151552,
    "hidden_size": 4096,
    "intermediate_size": 13696,
    "num_hidden_layers": 40,
    "num_attention_heads": 32,
    "num_key_value_heads": 2,
    "head_dim": 128,
    "attention_bias": True,
}

MODELS: dict[str, Mapping[str, Any]] = {
    "bert-base": {
        "model_type": "bert",
        "vocab_size": 30522,
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
    },
    "glm-4-9b": {"model_type": "glm", **_GLM_9B},
    "glm-4-9b-0414": {"model_type": "glm4", **_GLM_9B},
    "glm-4.5-air": {
        "model_type": "glm4_moe",
        "vocab_size": 151552,
        "hidden_size": 4096,
        "intermediate_size": 10944,
        "moe_intermediate_size": 1408,
        "num_hidden_layers": 46,
        "num_attention_heads": 96,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "n_routed_experts": 128,
        "attention_bias": True,
    },
    "llama-2-7b": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
    },
    "llama-2-70b": {
        "model_type": "llama",
        "vocab_size": 32000,
        "hidden_size": 8192,
        "intermediate_size": 28672,
        "num_hidden_layers": 80,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
    },
    "qwen3-30b-a3b": {
        "model_type": "qwen3_moe",
        "vocab_size": 151936,
        "hidden_size": 2048,
        "intermediate_size": 6144,
        "moe_intermediate_size": 768,
        "num_hidden_layers": 48,
        "num_attention_heads": 32,
        "num_key_value_heads": 4,
        "head_dim": 128,
        "num_experts": 128,
    },
    "smollm2-135m": {
        "model_type": "llama",
        "vocab_size": 49152,
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_attention_heads": 9,
        "num_key_value_heads": 3,
        "tie_word_embeddings": True,
    },
}

# Makers' data sheets: GiB, dense TFLOPs in bf16 and in fp32 without sparsity, GB/s to its neighbours (NVLink, else PCIe) and to the
# host in one direction; then, for a usual host: GiB and cores beside each GPU, GB/s of network for the node (8 x 200 or 400 Gb/s for
# A100 and H100 systems, 100 Gb/s Ethernet elsewhere).
_GPUS: dict[str, tuple[int, float, float, float, float, int, int, float]] = {
    "a100-40g": (40, 312.0, 19.5, 300.0, 32.0, 128, 16, 200.0),
    "a100-80g": (80, 312.0, 19.5, 300.0, 32.0, 128, 16, 200.0),
    "h100-80g": (80, 989.0, 67.0, 450.0, 64.0, 256, 16, 400.0),
    "h200-141g": (141, 989.0, 67.0, 450.0, 64.0, 256, 16, 400.0),
    "l40s": (48, 362.0, 91.6, 32.0, 32.0, 96, 16, 12.5),
    "4090": (24, 165.2, 82.6, 32.0, 32.0, 64, 8, 12.5),
}
GPUS = tuple(_GPUS)


def described(gpu: str, *, gpus: int, nodes: int = 1) -> HardwareSpec:
    """`nodes` machines with `gpus` GPUs each of the kind `gpu`. Raises UsageError on a kind that is not known."""
    if gpu not in _GPUS:
        raise UsageError(f"--gpu {gpu!r} is not known; choose from {', '.join(_GPUS)}, or cpu")
    gib, tflops, fp32, link, host, memory, cores, network = _GPUS[gpu]
    return HardwareSpec(
        cpus=cores * gpus,
        memory_gib=memory * gpus,
        gpus=gpus,
        gpu_memory_gib=gib,
        gpu_name=gpu,
        nodes=nodes,
        gpu_tflops=tflops,
        gpu_tflops_fp32=fp32,
        link_gbs=link,
        host_gbs=host,
        network_gbs=network,
    )
