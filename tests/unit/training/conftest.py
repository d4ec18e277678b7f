"""A toy language that a tiny GLM learns in seconds: rows with token 7 are 'pos', rows with token 8 are 'neg'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoglm_ops.contracts.arrays import TokenArrays, TokenMeta, write_arrays
from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.training.job import Job
from autoglm_ops.training.models import ModelSpec
from autoglm_ops.training.recipe import Recipe

VOCABULARY, MAX_LENGTH = 40, 24


@pytest.fixture(scope="session")
def tokens(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens")
    random = np.random.default_rng(0)
    counts = {"train": 200, "validation": 60, "gate": 40}
    for split, count in counts.items():
        labels = [int(label) for label in random.integers(0, 2, count)]
        rows = []
        for label in labels:
            row = random.integers(10, VOCABULARY, random.integers(2, MAX_LENGTH))
            row[random.integers(len(row))] = 8 - label
            rows.append([*row.tolist(), 2])
        write_arrays(folder, split, rows, labels)
    TokenMeta(vocabulary=VOCABULARY, pad_id=0, max_length=MAX_LENGTH, labels=("neg", "pos"), rows=counts).write(
        folder / "meta.json"
    )
    return folder


@pytest.fixture
def spec(tokens: Path) -> ModelSpec:
    meta = TokenMeta.read(tokens / "meta.json")
    tiny = {"name": "glm-tiny", "hidden_size": 32, "layers": 1, "heads": 2, "dropout": None}
    return ModelSpec.of(tiny, meta, tokens)


@pytest.fixture
def arrays(tokens: Path) -> dict[str, TokenArrays]:
    return {split: TokenArrays.open(tokens, split) for split in ("train", "validation")}


@pytest.fixture(scope="session")
def chat_tokenizer() -> Any:
    """Bytes and the two control tokens of ChatML, as transformers wraps them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = Tokenizer(models.BPE(vocab={char: place for place, char in enumerate(alphabet)}, merges=[]))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|im_end|>", pad_token="<|pad|>")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>"]})
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
        "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    return tokenizer


@pytest.fixture
def bare_job(tmp_path: Path) -> Job:
    """Two ranks with micro-batches of eight rows; nothing to train."""
    plan = ParallelPlan(
        ranks=2, micro_batch=8, accumulation=1, zero_stage=0, precision="fp32", device="cpu", threads_per_rank=1,
        memory_bytes={}, fits=True, reasons=(),
    )  # fmt: skip
    recipe = Recipe(
        learning_rate=1e-3, weight_decay=0.0, batch_size=16, warmup_share=0.1, schedule="linear", label_smoothing=0.0,
        token_dropout=0.0, gradient_clip=1.0, steps=5, report=(5,), seed=0,
    )  # fmt: skip
    model = ModelSpec(name="m", folder=None, overrides={}, vocabulary=1, pad_id=0, max_length=1, labels=())
    return Job(
        tokens="", out=str(tmp_path), scratch=str(tmp_path / "checkpoints"), plan=plan, deepspeed={}, model=model,
        recipe=recipe, settings={},
    )  # fmt: skip
