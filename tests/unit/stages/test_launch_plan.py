"""What each key of a train-config does, seen in what a launch decides before it trains."""

from __future__ import annotations

import json
import random
from typing import Any

import numpy as np
import pytest

from autoglm_ops.contracts.training import HardwareSpec
from autoglm_ops.errors import BadData, BudgetSpent, UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.settings.launch import check_launch
from autoglm_ops.stages import launch_plan
from autoglm_ops.training.objective import IGNORED
from autoglm_ops.training.packed import PackedRows

HERE = HardwareSpec(cpus=2, memory_gib=16)
WORDS = ["river", "stone", "cloud", "light", "ember", "grass", "north", "quiet"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> launch_plan.Place:
    root = tmp_path_factory.mktemp("launch")
    dice = random.Random(0)
    texts = [" ".join(dice.choices(WORDS, k=dice.randint(5, 40))) + f" {number}" for number in range(400)]
    (root / "text").mkdir()
    lines = [json.dumps({"text": text}) for text in [*texts, texts[0]]]
    (root / "text" / "a.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (root / "chat").mkdir()
    turns = [
        {"messages": [{"role": "user", "content": f"say {text[:9]}"}, {"role": "assistant", "content": text}]} for text in texts
    ]
    chat = [json.dumps(item) for item in [*turns, turns[0], {"note": "no conversation"}]]
    (root / "chat" / "a.jsonl").write_text("\n".join(chat) + "\n", encoding="utf-8")
    return launch_plan.Place(root / "home", root, Settings.model_validate({"flow": {"suite": None}}))


def ready(place: launch_plan.Place, hardware: HardwareSpec = HERE, **sections: dict[str, Any]) -> launch_plan.Ready:
    base: dict[str, dict[str, Any]] = {
        "model": {"name": "glm-tiny", "seq_length": 32},
        "dataset": {"path": "text", "tokenizer": "glm-tokenizer", "vocabulary": 400, "validation": 0.1},
        "training": {"batch_size": 64, "epochs": 2.0},
        "pipeline": {"data_flow": False},
    }
    tree = {name: {**base.get(name, {}), **sections.get(name, {})} for name in {*base, *sections}}
    return launch_plan.prepare(check_launch(tree, {}, "test"), hardware, place, lambda what: None)


def said(found: launch_plan.Ready, key: str) -> Any:
    return next(item for item in found.plan.settings if item.key == key)


def test_the_global_batch_is_exactly_1024(place: launch_plan.Place) -> None:
    found = ready(place, training={"batch_size": 1024, "micro_batch": 8, "epochs": 20.0})
    plan, section = found.plan.plan, found.job.deepspeed
    assert (plan.ranks, plan.micro_batch, plan.accumulation) == (2, 8, 64)
    assert plan.global_batch == section["train_batch_size"] == found.job.recipe.batch_size == 1024


def test_model_and_length(place: launch_plan.Place) -> None:
    found = ready(place, model={"name": "glm-small", "seq_length": 16, "layers": 3})
    assert (found.job.model.overrides["hidden_size"], found.job.model.overrides["layers"]) == (128, 3)
    assert PackedRows(found.rows / "train").length == found.job.model.length == 16
    assert said(found, "model.seq_length").given


@pytest.mark.parametrize(("name", "kind"), [("adamw", "AdamW"), ("adam", "Adam"), ("sgd", "SGD")])
def test_the_optimizer_is_deepspeeds(place: launch_plan.Place, name: str, kind: str) -> None:
    section = ready(place, training={"optimizer": name}).job.deepspeed["optimizer"]
    assert section["type"] == kind
    assert section["params"].get("adam_w_mode", True) is (name != "adam")


def test_precision_is_what_was_asked(place: launch_plan.Place) -> None:
    found = ready(place, training={"precision": "bf16"})
    assert found.job.deepspeed["bf16"]["enabled"]
    assert found.plan.plan.precision == "bf16"
    assert ready(place).plan.plan.precision == "fp32"
    with pytest.raises(UsageError, match="fp16"):
        ready(place, training={"precision": "fp16"})


@pytest.mark.parametrize(
    ("key", "value", "where"),
    [
        ("weight_decay", 0.3, "weight_decay"), ("warmup_share", 0.5, "warmup_share"), ("schedule", "linear", "schedule"),
        ("gradient_clip", 0.25, "gradient_clip"), ("label_smoothing", 0.1, "label_smoothing"), ("seed", 11, "seed"),
        ("learning_rate", 0.02, "learning_rate"), ("max_steps", 3, "steps"),
    ],
)  # fmt: skip
def test_a_training_key_reaches_the_ranks(place: launch_plan.Place, key: str, value: Any, where: str) -> None:
    found = ready(place, training={key: value})
    assert getattr(found.job.recipe, where) == value
    if key == "learning_rate":
        assert found.job.deepspeed["optimizer"]["params"]["lr"] == value
        assert said(found, "training.learning_rate").given


def test_evaluations_and_layout_keys(place: launch_plan.Place) -> None:
    found = ready(place, training={"evaluations": 2, "max_steps": 4, "ranks": 1, "zero_stage": 2, "micro_batch": 4})
    assert found.job.recipe.report == (2, 4)
    assert (found.plan.plan.ranks, found.plan.plan.zero_stage, found.plan.plan.micro_batch) == (1, 2, 4)


@pytest.mark.parametrize(("key", "other"), [("tensor", "pipeline"), ("pipeline", "tensor")])
def test_a_model_is_cut_when_the_config_says_so(place: launch_plan.Place, key: str, other: str) -> None:
    found = ready(place, model={"layers": 2}, training={key: 2})
    plan = found.job.plan
    assert (getattr(plan, key), getattr(plan, other), plan.ranks, plan.copies, plan.global_batch) == (2, 1, 2, 1, 64)
    assert said(found, f"training.{key}").given
    assert not said(found, f"training.{other}").given
    off = ready(place, model={"layers": 2}, training={key: 2}, pipeline={"auto_parallel": False})
    assert (off.job.plan.ranks, off.job.plan.micro_batch, getattr(off.job.plan, key)) == (2, 1, 2)
    with pytest.raises(UsageError, match=f"plan.{key} = 3"):
        ready(place, model={"layers": 2}, training={key: 3})


def test_the_data_flow_engine_drops_what_is_double_and_can_be_off(place: launch_plan.Place) -> None:
    on = ready(place, pipeline={"data_flow": True})
    off = ready(place)
    assert sum(off.plan.rows.documents.values()) == 401
    assert sum(on.plan.rows.documents.values()) < 401
    assert on.plan.rows.dropped
    assert "dropped" in said(on, "pipeline.data_flow").reason
    assert on.plan.key != off.plan.key


def test_the_planner_can_be_off(place: launch_plan.Place) -> None:
    found = ready(place, pipeline={"data_flow": False, "auto_parallel": False})
    assert (found.plan.plan.ranks, found.plan.plan.micro_batch, found.plan.plan.accumulation) == (1, 1, 64)
    assert said(found, "training.ranks").reason.startswith("auto_parallel is off")
    assert said(ready(place, training={"ranks": 1}), "training.ranks").reason == "the config says so"


def test_every_setting_has_a_reason(place: launch_plan.Place) -> None:
    found = ready(place, training={"batch_size": None})
    assert {item.key for item in found.plan.settings} >= {
        "training.batch_size", "training.learning_rate", "training.optimizer", "training.precision", "training.zero_stage",
        "training.micro_batch",
    }  # fmt: skip
    assert all(item.reason for item in found.plan.settings)
    assert not said(found, "training.batch_size").given


def test_conversations_are_seen_and_only_answers_asked(place: launch_plan.Place) -> None:
    found = ready(place, dataset={"path": "chat", "vocabulary": 600}, model={"seq_length": 128}, pipeline={"data_flow": True})
    rows = found.plan.rows
    assert rows.format == "conversations"
    assert rows.dropped["duplicate"] == 1
    assert rows.dropped["no-conversation"] == 1
    labels = PackedRows(found.rows / "train").batch([0], 0, packed=True).labels
    assert 0 < int((labels != IGNORED).sum()) < 120
    plain = ready(place, dataset={"path": "chat", "vocabulary": 600}, model={"seq_length": 128})
    assert "duplicate" not in plain.plan.rows.dropped


def test_no_validation_document_is_trained_on(place: launch_plan.Place) -> None:
    found = ready(place)
    assert found.plan.rows.rows["validation"] > 0
    assert 0.04 < found.plan.rows.documents["validation"] / 401 < 0.2
    tokens = np.load(next((found.rows / "train").glob("*.tokens.npy")))
    assert tokens.max() < found.plan.rows.vocabulary == found.job.model.vocabulary


def test_the_same_config_finds_its_rows_and_its_key(place: launch_plan.Place) -> None:
    assert ready(place).plan == ready(place).plan
    assert ready(place, training={"seed": 8}).plan.key != ready(place).plan.key


def test_a_budget_is_checked_before_the_run(place: launch_plan.Place) -> None:
    found = ready(place, budget={"seconds": 1e-6, "price_per_hour": 3600.0})
    assert found.plan.estimate.money == pytest.approx(found.plan.estimate.seconds, abs=1e-3)
    with pytest.raises(BudgetSpent, match="estimated at"):
        launch_plan.refuse_over_budget(found)


@pytest.mark.parametrize(
    ("sections", "said"),
    [
        ({"model": {"name": "glm-huge"}}, "did you mean 'glm-large'"),
        ({"model": {"name": "org/model"}}, "nothing is downloaded"),
        ({"dataset": {"tokenizer": "glm-tokeniser"}}, "nothing is downloaded"),
        ({"training": {"lora": {}}}, "starts from nothing"),
        ({"training": {"callbacks": ["early-stpo"]}}, "did you mean 'early-stop'"),
        ({"training": {"loss": "causal-ml"}}, "did you mean 'causal-lm'"),
        ({"training": {"micro_batch": 5}}, "does not divide"),
    ],
)
def test_what_cannot_be_is_said_before_any_work(place: launch_plan.Place, sections: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError) as caught:
        ready(place, **sections)
    assert said in str(caught.value)


def test_too_little_data_for_a_batch(place: launch_plan.Place) -> None:
    with pytest.raises(BadData, match="do not fill one global batch of 4096"):
        ready(place, training={"batch_size": 4096, "epochs": 1.0})


def test_the_literal_layout_on_described_gpus(place: launch_plan.Place) -> None:
    """The specification's own values, but for the bucket: glm-large, 2,048 tokens, 1,024 rows, bf16, on eight H100s."""
    from autoglm_ops.planning import described

    found = ready(
        place, described("h100-80g", gpus=8), model={"name": "glm-large", "seq_length": 2048},
        training={"batch_size": 1024, "precision": "bf16", "optimizer": "adamw", "epochs": 400.0},
    )  # fmt: skip
    assert found.plan.plan.fits
    assert found.plan.plan.global_batch == 1024
    assert found.plan.plan.precision == "bf16"
    assert found.plan.plan.ranks == 8
