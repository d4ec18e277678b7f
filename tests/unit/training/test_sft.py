"""Conversations to an adapter and back, whole: template, packing, LoRA, publishing, loading. On models a second old."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from autoglm_ops.training import lora, segments
from autoglm_ops.training.config import TrainerConfig
from autoglm_ops.training.instructions import conversations, texts
from autoglm_ops.training.loaders import LossJudge
from autoglm_ops.training.packing import ExampleLoader
from autoglm_ops.training.sources import module_of
from autoglm_ops.training.trainer import AutoGLMTrainer

SIZE = {
    "vocab_size": 259, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0, "initializer_range": 0.2,
}  # fmt: skip
WIDTH = 96


def asked(numbers: range) -> list[list[dict[str, str]]]:
    """Whoever is asked for a letter says it four times."""
    letters = [chr(97 + number % 26) for number in numbers]
    return [[{"role": "user", "content": f"say {x}"}, {"role": "assistant", "content": 4 * x}] for x in letters]


@pytest.mark.parametrize("family", ["llama", "glm"])
def test_an_adapter_learned_from_conversations_answers_the_same_when_loaded(
    family: str, chat_tokenizer: Any, tmp_path: Path
) -> None:
    torch.set_num_threads(1)
    config = {
        "model": {**SIZE, "model_type": family}, "lora": {"rank": 8, "alpha": 32}, "learning_rate": 0.02, "weight_decay": 0.0,
        "epochs": 100, "max_steps": 40, "accumulation": 2, "evaluations": 2, "out": tmp_path, "seed": 1,
    }  # fmt: skip
    trainer = AutoGLMTrainer(config)
    read = conversations(chat_tokenizer, asked(range(26)), WIDTH)
    make = {"batch_size": 2, "width": WIDTH, "pad_id": chat_tokenizer.pad_token_id, "module": trainer.module}
    loader = ExampleLoader(read.examples, **make)
    held = ExampleLoader(read.examples[::4], **{**make, "shuffle": False})
    assert loader.packed
    told = trainer.fit(loader, held)
    assert told.validation[-1][1] < 0.75 * told.losses[0][1]
    base = module_of(TrainerConfig(model=config["model"], seed=1))
    again = lora.load(base, tmp_path / "adapter")
    segments.use(again)  # as the loader did with the trainer's: equal kernels, equal bits
    judge = LossJudge(held, trainer._reader(), trainer._objective)
    engines = [AutoGLMTrainer({"model": module})._engine(trainer._recipe(1, 1e-3)) for module in (trainer.module, again)]
    assert round(judge.score(engines[0], 0), 6) == told.best_value
    assert judge.score(engines[0], 0) == judge.score(engines[1], 0)


def test_plain_text_is_pretrained_from_scratch(chat_tokenizer: Any) -> None:
    torch.set_num_threads(1)
    read = texts(chat_tokenizer, ["the cat sat on the mat. " * 3, "a dog ran. " * 9, "the dog sat. " * 2], 64)
    trainer = AutoGLMTrainer({"model": "glm-tiny", "vocabulary": 259, "max_steps": 40, "epochs": 100, "learning_rate": 0.01})
    loader = ExampleLoader(read.examples, batch_size=4, width=64, pad_id=chat_tokenizer.pad_token_id, module=trainer.module)
    told = trainer.fit(loader, loader)
    assert told.best_value < 0.5 * told.losses[0][1]
