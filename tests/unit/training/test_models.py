"""Names, shapes and folders of models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.errors import BadData, UsageError
from autoglm_ops.training.models import BUILTIN, ModelSpec, build, shape_of

META = TokenMeta(vocabulary=300, pad_id=0, max_length=32, labels=("a", "b", "c"), rows={})


def spec_of(name: str, origin: Path, **overrides: object) -> ModelSpec:
    return ModelSpec.of({"name": name, **overrides}, META, origin)


@pytest.mark.parametrize("name", ["glm-tiny", "glm-small"])
def test_the_shape_counts_every_parameter_without_torch(name: str, tmp_path: Path) -> None:
    spec = spec_of(name, tmp_path)
    module = build(spec, 1)
    assert type(module).__name__ == "GlmForSequenceClassification"
    assert shape_of(spec).parameters == sum(parameter.numel() for parameter in module.parameters())
    assert module.config.id2label == {0: "a", 1: "b", 2: "c"}


def test_weights_are_a_function_of_the_seed(tmp_path: Path) -> None:
    spec = spec_of("glm-tiny", tmp_path)
    first, second, other = (build(spec, seed).score.weight for seed in (1, 1, 2))
    assert (first == second).all()
    assert (first != other).any()


def test_overrides_change_the_configuration(tmp_path: Path) -> None:
    shape = shape_of(spec_of("glm-small", tmp_path, hidden_size=64, layers=3, heads=2))
    assert (shape.hidden_size, shape.layers, shape.heads) == (64, 3, 2)


def test_an_unknown_name_offers_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown model 'glm-smal'; did you mean 'glm-small'"):
        spec_of("glm-smal", tmp_path)
    assert "glm-small" in BUILTIN.names()


def test_a_hub_name_is_not_downloaded(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing is downloaded"):
        spec_of("someone/some-model", tmp_path)


def test_heads_must_divide_the_hidden_size(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"hidden_size = 100 must be a multiple of 4 × model.heads = 16"):
        shape_of(spec_of("glm-small", tmp_path, hidden_size=100))


@pytest.fixture
def bert(tmp_path: Path) -> Path:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(vocab_size=300, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "bert")
    return tmp_path


def test_a_folder_of_another_family_is_continued_with_our_labels(bert: Path) -> None:
    spec = spec_of("bert", bert, dropout=0.3)
    module = build(spec, 1)
    assert type(module).__name__ == "BertForSequenceClassification"
    assert module.config.hidden_dropout_prob == 0.3
    assert module.classifier.weight.shape == (3, 32)
    assert shape_of(spec).hidden_size == 32


def test_a_folder_keeps_its_shape(bert: Path) -> None:
    with pytest.raises(UsageError, match=r"model.layers cannot be changed for 'bert'"):
        build(spec_of("bert", bert, layers=2), 1)


def test_a_tokenizer_larger_than_the_model_is_refused(bert: Path) -> None:
    wide = META.model_copy(update={"vocabulary": 301})
    with pytest.raises(UsageError, match="knows 300 tokens and the tokenizer has 301"):
        build(ModelSpec.of({"name": "bert"}, wide, bert), 1)


@pytest.mark.parametrize(
    ("change", "said"),
    [({"auto_map": {"AutoModel": "x.Y"}}, "its own code"), (None, "no readable config.json"), ({}, "a pickle")],
)
def test_a_folder_that_could_run_code_is_refused(bert: Path, change: dict[str, object] | None, said: str) -> None:
    folder = bert / "bert"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text("{" if change is None else json.dumps({**config, **change}))
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(BadData, match=said):
        shape_of(spec_of("bert", bert))
