"""Model families: train, publish, verify, read again equal, answer as the server does. The table in the README is what is proven here."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.errors import BadData, UsageError
from autoglm_ops.planning.shapes import FAMILIES
from autoglm_ops.training import artifact, int8, lora
from autoglm_ops.training.config import TrainerConfig
from autoglm_ops.training.inference import Classifier
from autoglm_ops.training.models import INT8_FAMILIES, ModelSpec, build
from autoglm_ops.training.sources import module_of
from autoglm_ops.training.trainer import AutoGLMTrainer

README = Path(__file__).parents[3] / "README.md"
LABELS = ("neg", "pos")
LETTERS = {"[PAD]": 0, "[UNK]": 1, **{chr(97 + place): 2 + place for place in range(22)}}
META = TokenMeta(vocabulary=24, pad_id=0, max_length=16, labels=LABELS, rows={})
TEXTS = ["abc", "cabbage", "a", "fedcba"]
TINY = {
    "vocab_size": 24, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
    "max_position_embeddings": 32, "pad_token_id": 0, "eos_token_id": 1, "bos_token_id": None,
}  # fmt: skip
DECODER = {**TINY, "num_key_value_heads": 1, "head_dim": 8}
EXPERTS = {
    "moe_intermediate_size": 8, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1, "n_group": 1,
    "topk_group": 1, "first_k_dense_replace": 1,
}  # fmt: skip


class Family(NamedTuple):
    """A row of the README's table: the name there, the tiny configuration, what trains."""

    name: str
    config: dict[str, Any]
    tasks: tuple[str, ...] = ("classification", "causal-lm")


ROWS = (
    Family("GLM (`glm`)", {"model_type": "glm", **DECODER}),
    Family("GLM-4 (`glm4`)", {"model_type": "glm4", **DECODER}),
    Family("GLM-4.5, mixture of experts (`glm4_moe`)", {"model_type": "glm4_moe", **DECODER, **EXPERTS}, ("causal-lm",)),
    Family("Llama (`llama`)", {"model_type": "llama", **DECODER}),
    Family("Qwen 2 (`qwen2`)", {"model_type": "qwen2", **DECODER}),
    Family("Qwen 3 (`qwen3`)", {"model_type": "qwen3", **DECODER}),
    Family("BERT (`bert`)", {"model_type": "bert", **TINY}, ("classification",)),
)
CASES = [pytest.param(row.config, task, id=f"{row.config['model_type']}-{task}") for row in ROWS for task in row.tasks]


def batches(task: str) -> list[dict[str, torch.Tensor]]:
    """Rows of letters, padded on the right; a classifier learns whether an `a` stands in them."""
    random = torch.Generator().manual_seed(0)
    ids = torch.randint(2, 24, (8, 10), generator=random)
    mask = torch.ones_like(ids)
    ids[::2, 7:], mask[::2, 7:] = 0, 0
    labels = (ids == 2).any(1).long() if task == "classification" else torch.where(mask == 1, ids, -100)
    rows = {"input_ids": ids, "attention_mask": mask, "labels": labels}
    return [{name: tensor[start : start + 4] for name, tensor in rows.items()} for start in (0, 4)]


def trained(config: dict[str, Any], task: str, out: Path, **more: Any) -> AutoGLMTrainer:
    torch.set_num_threads(1)
    given = {"model": config, "task": task, "labels": LABELS if task == "classification" else (), "out": out}
    trainer = AutoGLMTrainer({**given, "epochs": 2, "evaluations": 1, **more})
    before = {name: tensor.clone() for name, tensor in trainer.module.named_parameters() if tensor.requires_grad}
    trainer.fit(batches(task), batches(task))
    assert any(not torch.equal(before[name], tensor) for name, tensor in trainer.module.named_parameters() if name in before)
    return trainer


def logits(module: Any, task: str) -> torch.Tensor:
    batch = batches(task)[0]
    with torch.inference_mode():
        found: torch.Tensor = module.eval()(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
    return found


@pytest.mark.parametrize(("config", "task"), CASES)
def test_a_family_trains_is_published_and_read_again_equal(config: dict[str, Any], task: str, tmp_path: Path) -> None:
    trainer = trained(config, task, tmp_path)
    artifact.verify(tmp_path / "model")
    labels = LABELS if task == "classification" else ()
    again = module_of(TrainerConfig.of({"model": str(tmp_path / "model"), "task": task, "labels": labels}))
    assert type(again) is type(trainer.module)
    assert torch.equal(logits(again, task), logits(trainer.module, task))


@pytest.mark.parametrize(("config", "task"), CASES)
def test_adapters_of_a_family_train_and_are_read_again_equal(config: dict[str, Any], task: str, tmp_path: Path) -> None:
    trainer = trained(config, task, tmp_path, lora={"rank": 2})
    labels = LABELS if task == "classification" else ()
    base = module_of(TrainerConfig.of({"model": config, "task": task, "labels": labels}))
    again = lora.load(base, tmp_path / "adapter")
    assert torch.equal(logits(again, task), logits(trainer.module, task))


@pytest.mark.parametrize("config", [row.config for row in ROWS if "classification" in row.tasks], ids=lambda c: c["model_type"])
def test_a_classifier_of_a_family_answers_as_the_server_reads_it(config: dict[str, Any], tmp_path: Path) -> None:
    """And the pipeline, which names it by its folder, continues these very weights."""
    trainer = trained(config, "classification", tmp_path)
    staged = Path(shutil.copytree(tmp_path / "model", tmp_path / "staged", ignore=shutil.ignore_patterns(artifact.MANIFEST)))
    _letters().save(str(staged / "tokenizer.json"))
    artifact.publish(staged, tmp_path / "served", architecture="any", labels=LABELS, max_length=16)
    server = Classifier.load(tmp_path / "served")
    pipeline = build(ModelSpec.of({"name": "served"}, META, tmp_path), 1).eval()
    continued = pipeline.state_dict()
    assert all(torch.equal(tensor, continued[name]) for name, tensor in trainer.module.state_dict().items())
    for text, chances in zip(TEXTS, server.predict(TEXTS), strict=True):
        ids = torch.tensor([[LETTERS[letter] for letter in text]])
        with torch.inference_mode():
            expected = trainer.module.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits
        assert chances == pytest.approx(np.asarray(torch.softmax(expected.double(), 1)[0]), abs=1e-5)


@pytest.mark.parametrize("config", [row.config for row in ROWS if "classification" in row.tasks], ids=lambda c: c["model_type"])
def test_a_classifier_of_a_family_is_made_int8_and_read_again_equal(config: dict[str, Any], tmp_path: Path) -> None:
    trainer = trained(config, "classification", tmp_path)
    whole = logits(trainer.module, "classification")
    folder = Path(shutil.copytree(tmp_path / "model", tmp_path / "staged", ignore=shutil.ignore_patterns(artifact.MANIFEST)))
    layers, _ = int8.rewrite(folder, trainer.module.eval(), lambda module: logits(module, "classification"))
    _letters().save(str(folder / "tokenizer.json"))
    artifact.publish(folder, tmp_path / "served", architecture="any", labels=LABELS, max_length=16)
    server = Classifier.load(tmp_path / "served")
    again = logits(server._module, "classification")
    assert layers > 2 and torch.equal(again, logits(trainer.module, "classification"))
    assert not torch.equal(again, whole) and torch.allclose(again, whole, atol=0.1)
    together = server.predict(TEXTS)
    assert all(
        np.allclose(server.predict([text])[0], chances, atol=1e-6) for text, chances in zip(TEXTS, together, strict=True)
    )
    with pytest.raises(BadData, match=r"rounded weights .* which nothing can be trained from"):
        build(ModelSpec.of({"name": "served"}, META, tmp_path), 1)


def test_what_may_be_asked_for_as_int8_is_what_is_proven_here() -> None:
    assert {row.config["model_type"] for row in ROWS if "classification" in row.tasks} == INT8_FAMILIES


def _letters() -> Any:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel(LETTERS, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    return tokenizer


def test_a_model_that_reads_both_ways_is_no_causal_language_model() -> None:
    with pytest.raises(UsageError, match="model_type 'bert' sees the words it is to predict"):
        module_of(TrainerConfig.of({"model": ROWS[-1].config, "task": "causal-lm"}))


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.config["model_type"])
def test_the_planner_counts_a_family_for_what_it_trains_as(row: Family) -> None:
    assert set(row.tasks) <= set(FAMILIES[row.config["model_type"]].tasks)


def test_the_readme_says_what_is_proven() -> None:
    text = README.read_text(encoding="utf-8")
    for row in ROWS:
        marks = ["yes" if task in row.tasks else "no" for task in ("classification", "causal-lm")]
        served = "yes" if "classification" in row.tasks else "no"
        assert f"| {row.name} | {marks[0]} | {marks[1]} | yes | {served} |" in text


Use = Callable[[Path], object]


@pytest.mark.parametrize(
    "use",
    [
        lambda folder: module_of(TrainerConfig.of({"model": str(folder), "task": "causal-lm"})),
        lambda folder: module_of(TrainerConfig.of({"model": str(folder), "task": "classification", "labels": LABELS})),
        lambda folder: build(
            ModelSpec.of({"name": folder.name}, META, folder.parent),
            1,
        ),
    ],
    ids=["causal-lm", "classification", "pipeline"],
)
def test_a_model_that_brings_code_is_refused_and_the_code_never_runs(use: Use, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    folder.mkdir()
    (folder / "modeling_theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w').close()\n")
    told = {"auto_map": {"AutoConfig": "modeling_theirs.C", "AutoModelForCausalLM": "modeling_theirs.M"}}
    (folder / "config.json").write_text(json.dumps({**ROWS[3].config, **told}))
    with pytest.raises(
        BadData, match=r"'theirs' wants its own code to be run \(auto_map\); convert it to a class transformers has"
    ):
        use(folder)
    assert not (tmp_path / "ran").exists()
