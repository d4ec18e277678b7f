"""The classifier answers for the folder that was published, in the order asked, and runs nothing from it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from autoglm_ops.contracts.record import digest_path
from autoglm_ops.errors import Tampered
from autoglm_ops.training import artifact, int8
from autoglm_ops.training.inference import Classifier
from autoglm_ops.training.models import ModelSpec, build

TEXTS = ["abc", "", "a" * 500, "cab", "xyz", "b"]


@pytest.fixture(scope="module", params=["float32", "int8"])
def staged_by(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tokenizers import Regex, Tokenizer, models, pre_tokenizers

    folder = tmp_path_factory.mktemp("classifier")
    tokenizer = Tokenizer(models.WordLevel({"[PAD]": 0, "[UNK]": 1, "a": 2, "b": 3, "c": 4}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    overrides = {"hidden_size": 32, "layers": 1, "heads": 2, "dropout": 0.0}
    spec = ModelSpec(
        name="glm-tiny", folder=None, overrides=overrides, vocabulary=5, pad_id=0, max_length=16, labels=("neg", "pos")
    )
    module = build(spec, 1).eval()
    module.save_pretrained(folder / "staged")
    if request.param == "int8":
        int8.rewrite(folder / "staged", module, lambda asked: asked(torch.arange(5)[None]))
    tokenizer.save(str(folder / "staged" / "tokenizer.json"))
    artifact.publish(
        folder / "staged", folder / "model", architecture="GlmForSequenceClassification", labels=spec.labels, max_length=16
    )
    return folder / "model"


@pytest.fixture
def model(staged_by: Path, tmp_path: Path) -> Path:
    import shutil

    return Path(shutil.copytree(staged_by, tmp_path / "model"))


def test_probabilities_come_in_the_order_asked_whatever_the_batch(model: Path) -> None:
    classifier = Classifier.load(model, digest_path(model))
    assert classifier.labels == ("neg", "pos")
    whole = classifier.predict(TEXTS)
    assert whole.shape == (6, 2)
    assert whole.sum(1) == pytest.approx(np.ones(6))
    for batch_size in (1, 2, 5):
        assert classifier.predict(TEXTS, batch_size) == pytest.approx(whole, abs=1e-5)
    for place, text in enumerate(TEXTS):
        assert classifier.predict([text])[0] == pytest.approx(whole[place], abs=1e-5)
    assert classifier.predict([]).shape == (0, 2)


def test_a_swap_between_check_and_load_is_caught(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = model.glob("*.safetensors")
    real = artifact.verify

    def verify_then_swap(folder: Path, digest: str | None = None) -> object:
        manifest = real(folder, digest)
        save_file({name: value * 0 for name, value in load_file(path).items()}, path)
        return manifest

    monkeypatch.setattr(artifact, "verify", verify_then_swap)
    with pytest.raises(Tampered, match="was changed"):
        Classifier.load(model)


def test_code_of_its_own_is_refused(model: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({**config, "auto_map": {"AutoConfig": "evil.Config"}}))
    (model / "manifest.json").unlink()
    staged = model.rename(model.with_name("staged"))
    artifact.publish(staged, model, architecture="X", labels=("neg", "pos"), max_length=16)
    with pytest.raises(Tampered, match="code of its own"):
        Classifier.load(model)
