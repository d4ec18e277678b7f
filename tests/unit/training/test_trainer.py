"""AutoGLMTrainer: configs are checked, any dict loader is read, runs repeat and resume bit for bit, accumulation is the big batch."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from autoglm_ops.contracts.record import digest_path
from autoglm_ops.errors import BadData, SettingsError, UsageError
from autoglm_ops.training import artifact
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.callbacks.early_stop import EarlyStop
from autoglm_ops.training.callbacks.metrics import JsonLines
from autoglm_ops.training.callbacks.progress import Bar
from autoglm_ops.training.config import TrainerConfig
from autoglm_ops.training.kept import newest_step
from autoglm_ops.training.progress import Progress
from autoglm_ops.training.trainer import AutoGLMTrainer, Fit

LLAMA = {
    "model_type": "llama", "vocab_size": 32, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
CONFIG = {"model": LLAMA, "learning_rate": 0.01, "epochs": 3, "evaluations": 6, "weight_decay": 0.0, "seed": 5}
Batch = dict[str, torch.Tensor]


def counting(rows: int = 24, width: int = 12, seed: int = 0) -> list[Batch]:
    """Rows that count upwards, cut to uneven lengths: what a causal LM learns at once."""
    random = torch.Generator().manual_seed(seed)
    start = torch.randint(0, 16, (rows, 1), generator=random)
    lengths = torch.randint(4, width + 1, (rows, 1), generator=random)
    mask = (torch.arange(width)[None] < lengths).long()
    ids = (start + torch.arange(width)[None]) % 32 * mask
    return [
        {"input_ids": ids[row], "attention_mask": mask[row], "labels": ids[row].masked_fill(mask[row] == 0, -100)}
        for row in range(rows)
    ]


def loader(batch_size: int = 4, shuffle: bool = True, **how: Any) -> DataLoader[Batch]:
    return DataLoader(counting(**how), batch_size=batch_size, shuffle=shuffle)  # type: ignore[arg-type]


def weights(trainer: AutoGLMTrainer) -> Batch:
    return {name: tensor.clone() for name, tensor in trainer.module.state_dict().items()}


def same(left: Batch, right: Batch) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def fitted(**changes: Any) -> tuple[Fit, Batch]:
    torch.set_num_threads(1)
    trainer = AutoGLMTrainer({**CONFIG, **changes})
    told = trainer.fit(loader(), loader(8, shuffle=False, seed=1))
    return told, weights(trainer)


def test_a_causal_lm_learns_and_two_fits_are_bit_identical() -> None:
    first, second = fitted(), fitted()
    assert first[0].validation == second[0].validation
    assert same(first[1], second[1])
    curve = [value for _, value in first[0].validation]
    assert (first[0].metric, first[0].steps, first[0].samples) == ("loss", 18, 72)
    assert curve[-1] < 0.6 * curve[0]
    assert first[0].best_value == min(curve)


def test_bf16_multiplies_in_bfloat16_and_learns_in_float32() -> None:
    exact, mixed = fitted(), fitted(precision="bf16")
    assert all(tensor.dtype == torch.float32 for tensor in mixed[1].values())
    assert not same(exact[1], mixed[1])
    assert mixed[0].best_value == pytest.approx(exact[0].best_value, abs=0.05)
    assert same(mixed[1], fitted(precision="bf16")[1])


def test_a_built_in_name_alone_is_a_model() -> None:
    trainer = AutoGLMTrainer({"model": "glm-tiny", "vocabulary": 32, "gradient_clip": 1.0, "max_steps": 2})
    told = trainer.fit(loader(), loader(8))
    assert type(trainer.module).__name__ == "GlmForCausalLM"
    assert told.trained == told.parameters
    assert told.steps == 2


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"model": "x", "gradient_clp": 1}, "unknown key 'gradient_clp' in the trainer's config; did you mean 'gradient_clip'"),
        ({"model": "x", "learning_rate": -1}, r"learning_rate = -1: .*greater than 0"),
        ({"model": "x", "lora": {"rank": 0}}, r"lora.rank = 0: .*greater than or equal to 1"),
        ({}, "model = "),
        ("glm-tiny", "a trainer takes a dict or a TrainerConfig, not str"),
    ],
)
def test_a_wrong_config_names_key_value_and_rule(given: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        AutoGLMTrainer(given)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": "glm-tyny"}, "did you mean 'glm-tiny'"),
        ({"model": "someone/model"}, "nothing is downloaded"),
        ({"model": {"model_type": "lama"}}, "model_type 'lama' is not one"),
        ({"model": 3}, "model is a int"),
        ({"model": "glm-tiny", "task": "classification"}, "a classifier needs labels"),
    ],
)
def test_a_model_that_is_none_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        _ = AutoGLMTrainer({**CONFIG, **changes}).module


@pytest.mark.parametrize(
    ("batch", "said"),
    [
        ({"ids": torch.zeros(1, 4)}, "no mapping with input_ids"),
        ({"input_ids": torch.full((1, 4), 32)}, "token id 32 is outside the model's vocabulary of 32"),
        ({"input_ids": torch.zeros(1, 4).long(), "labels": torch.zeros(1).long()}, r"labels have the shape \(1,\)"),
        ({"input_ids": torch.ones(1, 4).long(), "labels": torch.full((1, 4), -100)}, "without one labelled item"),
    ],
)
def test_a_batch_that_cannot_be_learned_from_is_named(batch: Batch, said: str) -> None:
    with pytest.raises(BadData, match=said):
        AutoGLMTrainer(CONFIG).fit([batch], [batch])


def test_loaders_without_length_or_without_a_second_reading_are_refused() -> None:
    def once() -> Iterator[Batch]:
        yield from loader()

    with pytest.raises(UsageError, match="a generator has no length, so epochs = 3 says nothing; set max_steps"):
        AutoGLMTrainer(CONFIG).fit(once(), loader(8))
    with pytest.raises(UsageError, match="can be read only once"):
        AutoGLMTrainer({**CONFIG, "max_steps": 50}).fit(once(), loader(8))
    assert AutoGLMTrainer({**CONFIG, "max_steps": 6}).fit(once(), loader(8)).steps == 6


def test_accumulation_gives_the_steps_of_the_whole_batch() -> None:
    """Rows of 4 to 12 tokens: a mean of the micro-batches' means would differ in the first digits."""
    torch.set_num_threads(1)
    ends = []
    for size, accumulation in ((8, 1), (2, 4), (1, 8)):
        trainer = AutoGLMTrainer({**CONFIG, "accumulation": accumulation, "max_steps": 6, "learning_rate": 1e-3})
        told = trainer.fit(loader(size, shuffle=False), loader(8, seed=1))
        ends.append((told.losses, weights(trainer)))
    for losses, after in ends[1:]:
        assert [loss for _, loss in losses] == pytest.approx([loss for _, loss in ends[0][0]], abs=2e-6)
        assert all(torch.allclose(after[name], ends[0][1][name], atol=2e-5) for name in after)


class Dies(Callback):
    def __init__(self, step: int) -> None:
        self.step = step
        self.ended = False

    def on_step(self, progress: Progress) -> None:
        if progress.step == self.step:
            raise KeyboardInterrupt

    def on_end(self, progress: Progress) -> None:
        self.ended = True


@pytest.mark.parametrize("lora", [None, {"rank": 2}])
def test_a_broken_off_fit_resumes_bit_identically(tmp_path: Path, lora: dict[str, int] | None) -> None:
    whole, after = fitted(out=tmp_path / "whole", lora=lora)
    dies = Dies(11)
    config = {**CONFIG, "out": tmp_path / "broken", "lora": lora}
    with pytest.raises(KeyboardInterrupt):
        AutoGLMTrainer(config, callbacks=[dies]).fit(loader(), loader(8, shuffle=False, seed=1))
    assert dies.ended
    kept = newest_step(tmp_path / "broken" / "checkpoints")
    assert kept in (3, 6, 9)  # the one at 9 is left out while that at 6 is still being written to a slow disk
    trainer = AutoGLMTrainer(config)
    told = trainer.fit(loader(), loader(8, shuffle=False, seed=1), resume=True)
    assert told.resumed_at_step == kept
    assert (told.validation, told.losses[-1], told.tokens) == (whole.validation, whole.losses[-1], whole.tokens)
    assert told.weights_sha256 == whole.weights_sha256
    assert same(weights(trainer), after)
    with pytest.raises(UsageError, match="fits this config"):
        AutoGLMTrainer({**config, "seed": 6}).fit(loader(), loader(8), resume=True)


def test_what_is_published_verifies_and_loads_equal(tmp_path: Path) -> None:
    told, after = fitted(out=tmp_path / "run")
    assert told.folder is not None
    manifest = artifact.verify(Path(told.folder), digest_path(Path(told.folder)))
    assert manifest.files["model.safetensors"] == told.weights_sha256
    assert same(weights(AutoGLMTrainer({**CONFIG, "model": told.folder})), after)


def test_classification_is_scored_by_macro_f1() -> None:
    torch.set_num_threads(1)
    random = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 2, (80,), generator=random)
    ids = torch.randint(4, 32, (80, 8), generator=random)
    ids[torch.arange(80), torch.randint(0, 7, (80,), generator=random)] = 2 + labels
    ids[:, -1] = 1
    batches = [{"input_ids": ids[at : at + 16], "labels": labels[at : at + 16]} for at in range(0, 80, 16)]
    config = {**CONFIG, "model": "glm-tiny", "vocabulary": 32, "task": "classification", "labels": ("a", "b"), "epochs": 12}
    told = AutoGLMTrainer(config).fit(batches, batches)
    assert told.metric == "macro-F1"
    assert told.best_value > 0.9


def test_a_module_of_ones_own_is_trained_with_a_loss_of_ones_own(tmp_path: Path) -> None:
    class Out:
        def __init__(self, logits: torch.Tensor) -> None:
            self.logits = logits

    class Own(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Embedding(32, 32)

        def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> Out:
            return Out(self.table(input_ids))

    class Doubled:
        def items(self, batch: Any) -> int:
            return int(batch.labels.numel())

        def loss(self, logits: torch.Tensor, batch: Any, items: float) -> torch.Tensor:
            return 2 * logits.square().sum() / items

    told = AutoGLMTrainer({**CONFIG, "model": Own(), "out": tmp_path / "own"}, objective=Doubled()).fit(loader(), loader(8))
    assert told.validation[-1][1] < told.validation[0][1]
    assert sorted(path.name for path in (tmp_path / "own" / "model").iterdir()) == ["manifest.json", "model.safetensors"]
    artifact.verify(tmp_path / "own" / "model")


def test_callbacks_write_lines_and_stop_early(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    config = {**CONFIG, "learning_rate": 1e-9, "epochs": 20, "evaluations": 60}
    told = AutoGLMTrainer(config, callbacks=[JsonLines(path), EarlyStop(2), Bar()]).fit(loader(), loader(8, shuffle=False))
    assert told.stopped.startswith("early-stop: no better in 2 evaluations than loss")
    assert told.steps < 120
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    steps = [line for line in lines if "learning_rate" in line]
    assert [line["step"] for line in steps] == list(range(1, told.steps + 1))
    assert all(line["gradient_norm"] > 0 for line in steps)
    assert [(line["step"], line["value"]) for line in lines if "metric" in line] == list(told.validation)
    with pytest.raises(UsageError, match="patience must be at least 1, but got 0"):
        EarlyStop(0)


def test_the_config_object_is_taken_as_it_is() -> None:
    config = TrainerConfig(model="glm-tiny")
    assert AutoGLMTrainer(config).config is config
