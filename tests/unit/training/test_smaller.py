"""What a run publishes as int8 is scored before and after on the same rows, and is the folder that a classifier opens."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoglm_ops.contracts.arrays import TokenArrays, write_arrays
from autoglm_ops.contracts.record import digest_tree
from autoglm_ops.contracts.training import Quantised
from autoglm_ops.training import smaller
from autoglm_ops.training.models import ModelSpec, build
from autoglm_ops.training.rows import MacroF1, Rows

SPEC = ModelSpec(
    name="glm-tiny", folder=None, overrides={"hidden_size": 64, "layers": 1, "heads": 4, "dropout": 0.0}, vocabulary=200, pad_id=0,
    max_length=16, labels=("neg", "pos"),
)  # fmt: skip


def rows(root: Path) -> Rows:
    random = np.random.default_rng(0)
    for split in ("train", "validation"):
        texts = [random.integers(1, 200, random.integers(2, 16)).tolist() for _ in range(40)]
        write_arrays(root, split, texts, [int(label) for label in random.integers(0, 2, 40)])
    return Rows(TokenArrays.open(root, "train"), TokenArrays.open(root, "validation"), 0, 2)


def made(root: Path) -> tuple[Path, Any, Quantised, int]:
    """A model saved, then made int8; and how often it said that it goes on."""
    module, beats = build(SPEC, 1).eval(), []
    module.save_pretrained(root / "weights")
    told = smaller.publish_int8(root / "weights", module, rows(root), lambda: beats.append(1))
    return root / "weights", module, told, len(beats)


def test_both_are_scored_on_the_same_rows_and_the_bytes_are_those_on_disk(tmp_path: Path) -> None:
    folder, module, told, beats = made(tmp_path)
    seen = rows(tmp_path)
    assert told.before == MacroF1(seen).score(smaller._Alone(build(SPEC, 1).eval(), lambda: None), 0)
    assert told.after == MacroF1(seen).score(smaller._Alone(module, lambda: None), 0)
    assert (told.scheme, told.layers, told.rows) == ("autoglm-int8 1", 7, 40)
    assert told.bytes_after == (folder / "int8.safetensors").stat().st_size < 0.4 * told.bytes_before
    assert beats >= 2
    assert json.loads((folder / "config.json").read_text())["quantization_config"]["modules"][0] == "model.embed_tokens"


def test_transformers_does_not_take_the_numbers_for_weights(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    folder = made(tmp_path)[0]
    assert not (folder / "model.safetensors").exists()
    with pytest.raises(OSError, match=r"no file named model\.safetensors"):
        AutoModelForSequenceClassification.from_pretrained(folder, local_files_only=True)


def test_the_same_model_is_the_same_folder(tmp_path: Path) -> None:
    assert digest_tree(made(tmp_path / "one")[0]) == digest_tree(made(tmp_path / "two")[0])
