"""`autoglm launch` as a person calls it, up to the training itself (integration/test_launch.py goes on)."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoglm_ops.cli.main import main

CONFIG = """\
model: {name: glm-large, seq_length: 2048}
dataset: {path: texts, tokenizer: glm-tokenizer}
training: {batch_size: 1024, precision: bf16, optimizer: adamw, epochs: 900}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(tmp_path))
    monkeypatch.setenv("AUTOGLM_HOME", str(tmp_path / "home"))
    (tmp_path / "texts").mkdir()
    lines = [json.dumps({"text": f"the {n} birds of spring came over hill {n * 7}"}) for n in range(300)]
    (tmp_path / "texts" / "a.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "train-config.yaml").write_text(CONFIG)
    return tmp_path


def call(place: Path, capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> tuple[str, str]:
    with pytest.raises(SystemExit) as ended:
        main(["launch", "--config", str(place / "train-config.yaml"), *arguments])
    said = capsys.readouterr()
    assert ended.value.code == code, said
    return said.out, said.err


def test_explain_says_every_setting_and_its_reason(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The specification's layout on eight described GPUs, nothing trained: what the README shows."""
    said, _ = call(place, capsys, "--auto-pipeline", "--no-data-flow", "--explain", "--dry-run", "--gpus", "8")
    for key in ("batch_size", "learning_rate", "optimizer", "precision", "zero_stage", "micro_batch", "ranks"):
        assert f"training.{key}" in said
    assert "it is kept exactly, by accumulation" in said
    assert "arXiv:2001.08361" in said
    assert "fits" in said
    assert "nothing was trained" in said
    assert not (place / "home" / "launches").exists()


def test_json_and_switches(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--no-auto-pipeline", "--tuner", "--dry-run", "--json", "--gpus", "8")
    found = json.loads(call(place, capsys, *words)[0])
    assert found["config"]["pipeline"] | {"tuner_trials": 0, "tuner_steps": 0} == {
        "data_flow": False, "auto_parallel": False, "tuner": True, "tuner_trials": 0, "tuner_steps": 0,
    }  # fmt: skip
    plan = found["plan"]
    assert (plan["ranks"], plan["micro_batch"], plan["accumulation"]) == (1, 1, 1024)
    assert found["rows"]["format"] == "text"
    assert found["inputs"].keys() == {"config", "data", "rows", "tokenizer"}


def test_described_hardware_trains_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "they go with --dry-run" in call(place, capsys, "--gpus", "8", code=2)[1].replace("\n", " ")


def test_what_is_over_the_budget_ends_with_3(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("--no-data-flow", "--dry-run", "--gpus", "8", "--set", "budget.seconds=0.001", "--set", "budget.price_per_hour=20")
    said, error = call(place, capsys, *words, code=3)
    assert "at 20 an hour" in said
    assert "budget-spent" in error


def test_an_unknown_key_names_the_nearest(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "did you mean 'training.batch_size'?" in call(place, capsys, "--set", "training.batchsize=3", code=2)[1]
