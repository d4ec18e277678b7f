"""A language model of a few thousand weights and rows that can be learned, as a job for ranks."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.planning import deepspeed_config
from autoglm_ops.training.lm_job import CausalModel, LmJob, optimizer_section
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.warm import WarmGroup, error_of

BODY = "autoglm_ops.training.lm_rank:work"
BATCH = 16
VOCABULARY = 40
GLM = CausalModel(
    name="glm-tiny", folder=None, overrides={"hidden_size": 32, "layers": 2, "heads": 4, "dropout": 0.0}, vocabulary=VOCABULARY, pad_id=0,
    length=16,
)  # fmt: skip


def rows(folder: Path) -> Path:
    dice = np.random.default_rng(0)
    for split, count in (("train", 64), ("validation", 8)):
        (folder / split).mkdir(parents=True)
        start = dice.integers(1, 30, (count, 1))
        np.save(folder / split / "part-000000.tokens.npy", ((start + np.arange(16)) % 30 + 1).astype(np.int32))
        np.save(folder / split / "part-000000.segments.npy", np.ones((count, 16), np.int32))
    return folder


def saved(family: str, folder: Path, *, tied: bool, vocabulary: int = VOCABULARY) -> CausalModel:
    """A model of another family, as a folder with weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(3)
    config = AutoConfig.for_model(
        family, vocab_size=vocabulary, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, head_dim=8, max_position_embeddings=16, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        tie_word_embeddings=tied,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return CausalModel(name=family, folder=str(folder), overrides={}, vocabulary=VOCABULARY, pad_id=0, length=16)


def job(out: Path, data: Path, *, model: CausalModel = GLM, scratch: Path | None = None, **given: Any) -> LmJob:
    """Four steps, scored after each; published is the mean of the last two. `given` goes to the plan, which takes two ranks and as many micro-batches as the batch needs."""
    laid = {"ranks": 2, "micro_batch": 4, "zero_stage": 0, "precision": "fp32", **given}
    copies = laid["ranks"] // (laid.get("tensor", 1) * laid.get("pipeline", 1))
    plan = ParallelPlan(
        **laid, accumulation=BATCH // (copies * laid["micro_batch"]), device="cpu", threads_per_rank=1, memory_bytes={}, fits=True,
        reasons=(), buckets={} if laid["zero_stage"] == 0 else {"reduce_bucket_size": 50_000, "allgather_bucket_size": 50_000},
    )  # fmt: skip
    assert plan.global_batch == BATCH
    config = deepspeed_config(plan, learning_rate=1e-2, weight_decay=0.01, gradient_clip=1.0)
    for part in ("offload_optimizer", "offload_param"):
        config["zero_optimization"].get(part, {}).pop("pin_memory", None)  # what is pinned is a GPU's
    recipe = Recipe(
        learning_rate=1e-2, weight_decay=0.01, batch_size=BATCH, warmup_share=0.1, schedule="linear", label_smoothing=0.0,
        token_dropout=0.0, gradient_clip=1.0, steps=4, report=(1, 2, 3, 4), seed=1, average=0.5,
    )  # fmt: skip
    out.mkdir()
    return LmJob(
        rows=str(data), out=str(out), scratch=str(scratch or out / "run" / "checkpoints"), plan=plan,
        deepspeed=optimizer_section("adamw", config), recipe=recipe, loss="causal-lm", model=model,
    )  # fmt: skip


def trained(group: WarmGroup, one: LmJob) -> dict[str, Any]:
    """Run it to its end; `trained.json`."""
    group.start(one, Path(one.out))
    assert group.ended(timeout=300), f"{one.out} hangs"
    if group.failure is not None:
        raise error_of(group.failure)
    said: dict[str, Any] = json.loads((Path(one.out) / "trained.json").read_text())
    return said


def losses(said: dict[str, Any]) -> list[float]:
    return [value for _, value in said["losses"] + said["validation"]]


def weights(one: LmJob) -> dict[str, Any]:
    from safetensors.numpy import load_file

    return dict(load_file(Path(one.out) / "weights" / "model.safetensors"))


def assert_close(found: dict[str, Any], expected: dict[str, Any], most: float) -> None:
    """The same names and shapes, and no element further away than `most`."""
    assert {name: one.shape for name, one in found.items()} == {name: one.shape for name, one in expected.items()}
    for name, one in found.items():
        assert one == pytest.approx(expected[name], abs=most), name
