"""A train-config: exactly the layout of the specification, and clear words for anything else."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_ops.errors import SettingsError
from autoglm_ops.settings.launch import load_launch

LAYOUT = """\
model: {name: glm-large, seq_length: 2048}
dataset: {path: s3://my-bucket/pretrain-data, tokenizer: glm-tokenizer}
training: {batch_size: 1024, precision: bf16, optimizer: adamw}
"""


def config(folder: Path, text: str) -> Path:
    path = folder / "train-config.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_layout_is_taken_as_it_stands(tmp_path: Path) -> None:
    found = load_launch(config(tmp_path, LAYOUT))
    assert (found.model.name, found.model.seq_length) == ("glm-large", 2048)
    assert (found.dataset.path, found.dataset.tokenizer) == ("s3://my-bucket/pretrain-data", "glm-tokenizer")
    assert (found.training.batch_size, found.training.precision, found.training.optimizer) == (1024, "bf16", "adamw")
    assert found.pipeline.model_dump(include={"data_flow", "auto_parallel", "tuner"}) == dict.fromkeys(
        ("data_flow", "auto_parallel", "tuner"), True
    )


def test_a_key_is_overridden(tmp_path: Path) -> None:
    found = load_launch(config(tmp_path, LAYOUT), ("training.batch_size=64", "training.lora={rank: 4}"))
    assert found.training.batch_size == 64
    assert found.training.lora is not None
    assert found.training.lora.rank == 4


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("optimizer: adamw", "optimiser: adamw"), "did you mean 'training.optimizer'"),
        (("seq_length", "sequence_length"), "did you mean 'model.seq_length'"),
        (("batch_size: 1024", "batch_size: 0"), "training.batch_size = 0"),
        (("precision: bf16", "precision: int3"), "training.precision = 'int3'"),
        (("path: s3://my-bucket/pretrain-data, ", ""), "dataset.path"),
        (("batch_size: 1024", "batch_size: 1024, batch_size: 2"), "stands twice"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: tuple[str, str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load_launch(config(tmp_path, LAYOUT.replace(*change)))
    assert said in str(caught.value)
