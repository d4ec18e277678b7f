"""Adapters: they alone are learned and saved, they fold into the base, and they know the base they belong to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from autoglm_ops.errors import Tampered, UsageError
from autoglm_ops.training import artifact, lora
from autoglm_ops.training.config import TrainerConfig
from autoglm_ops.training.sources import module_of
from autoglm_ops.training.trainer import AutoGLMTrainer

LLAMA = {
    "model_type": "llama", "vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 64,
}  # fmt: skip
CONFIG = {"model": LLAMA, "lora": {"rank": 4, "alpha": 8}, "learning_rate": 0.02, "epochs": 4, "seed": 3}
IDS = (torch.arange(48).reshape(6, 8) * 5) % 64


def base(seed: int = 3) -> Any:
    return module_of(TrainerConfig(model=LLAMA, seed=seed))


def logits(module: Any) -> torch.Tensor:
    with torch.no_grad():
        out: torch.Tensor = module.eval()(input_ids=IDS, use_cache=False).logits
    return out


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[AutoGLMTrainer, Path]:
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp("lora")
    trainer = AutoGLMTrainer({**CONFIG, "out": out})
    batches = [{"input_ids": IDS[row : row + 2]} for row in range(0, 6, 2)]
    told = trainer.fit(batches, batches)
    assert told.validation[-1][1] < told.validation[0][1]
    assert 0 < told.trained < 0.5 * told.parameters
    return trainer, out


def test_the_base_is_untouched_and_only_adapters_are_saved(trained: tuple[AutoGLMTrainer, Path]) -> None:
    from safetensors import safe_open

    trainer, out = trained
    manifest = artifact.verify(out / "adapter")
    assert sorted(manifest.files) == ["adapter_config.json", "adapter_model.safetensors", "lora.json"]
    with safe_open(out / "adapter" / lora.WEIGHTS, "pt") as file:
        assert all("lora_" in name for name in file.keys())  # noqa: SIM118
    kept = {name.replace(".base_layer.", "."): p for name, p in trainer.module.named_parameters() if "lora_" not in name}
    assert all(torch.equal(kept[f"base_model.model.{name}"], tensor) for name, tensor in base().named_parameters())


def test_it_loads_equal_and_on_no_other_base(trained: tuple[AutoGLMTrainer, Path]) -> None:
    trainer, out = trained
    assert torch.equal(logits(lora.load(base(), out / "adapter")), logits(trainer.module))
    assert not torch.allclose(logits(base()), logits(trainer.module), atol=1e-2)
    with pytest.raises(Tampered, match=r"was learned on a base with digest .* and this one has"):
        lora.load(base(seed=4), out / "adapter")


def test_other_tools_read_it_too(trained: tuple[AutoGLMTrainer, Path]) -> None:
    from peft import PeftModel

    trainer, out = trained
    assert torch.equal(logits(PeftModel.from_pretrained(base(), str(out / "adapter"))), logits(trainer.module))


def test_a_changed_byte_is_refused(trained: tuple[AutoGLMTrainer, Path], tmp_path: Path) -> None:
    import shutil

    shutil.copytree(trained[1] / "adapter", tmp_path / "adapter")
    note = tmp_path / "adapter" / "lora.json"
    note.write_text(note.read_text().replace('"rank": 4', '"rank": 8'))
    with pytest.raises(Tampered, match=r"lora\.json was changed"):
        lora.load(base(), tmp_path / "adapter")


def test_the_export_is_base_and_adapter_in_one(trained: tuple[AutoGLMTrainer, Path], tmp_path: Path) -> None:
    _, out = trained
    trainer = AutoGLMTrainer(CONFIG)
    trainer._module = lora.load(base(), out / "adapter")
    before = logits(trainer.module)
    trainer.export(tmp_path / "whole")
    artifact.verify(tmp_path / "whole")
    whole = module_of(TrainerConfig(model=str(tmp_path / "whole")))
    assert type(whole).__name__ == "LlamaForCausalLM"
    assert torch.allclose(logits(whole), before, atol=1e-5)


def test_a_target_that_no_layer_has_is_named() -> None:
    with pytest.raises(UsageError, match=r"lora.targets = \('query',\) fit no layer; this model has .*q_proj"):
        lora.wrap(base(), lora.Lora(targets=("query",)), "causal-lm")


def test_a_classifier_keeps_its_head_with_the_adapter(tmp_path: Path) -> None:
    config = {**CONFIG, "task": "classification", "labels": ("a", "b"), "model": {**LLAMA, "pad_token_id": 0}}
    trainer = AutoGLMTrainer({**config, "out": tmp_path})
    batch = {"input_ids": IDS + 1, "labels": torch.tensor([0, 1, 0, 1, 0, 1])}
    trainer.fit([batch], [batch])
    plain = module_of(TrainerConfig.of({key: value for key, value in config.items() if key != "lora"}))
    assert torch.equal(logits(lora.load(plain, tmp_path / "adapter")), logits(trainer.module))
