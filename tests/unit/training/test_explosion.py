"""A layer that exploded goes back to what it was; and callbacks by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from autoglm_ops.errors import UsageError
from autoglm_ops.training.batch import DictBatch
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.callbacks.catalog import CALLBACKS, made
from autoglm_ops.training.callbacks.explosion_reset import NOTE, ExplosionReset, abnormal, layer_of
from autoglm_ops.training.lm_job import CausalModel
from autoglm_ops.training.loop import Taken, run
from autoglm_ops.training.objective import CausalLM
from autoglm_ops.training.plain import PlainEngine
from autoglm_ops.training.progress import Progress
from autoglm_ops.training.recipe import Recipe

STEPS, BROKEN = 50, 35


def batch(seed: int) -> DictBatch:
    """Counting upwards from anywhere: quickly learned."""
    start = np.random.default_rng(seed).integers(0, 30, (8, 1))
    ids = torch.from_numpy((start + np.arange(16)) % 30)
    return DictBatch({"input_ids": ids, "attention_mask": torch.ones_like(ids)}, ids)


class _Feed:
    def take(self, step: int) -> Taken:
        return Taken([batch(step)], 8, 128)


class _Judge:
    metric, higher = "loss", False

    def score(self, engine: Any, step: int) -> float:
        held = batch(10_000)
        return float(CausalLM().loss(engine.logits(held), held, 120.0))


class _Flip(Callback):
    """What a flipped exponent bit does to one matrix, once."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def on_step(self, progress: Progress) -> None:
        if progress.step == BROKEN:
            with torch.no_grad():
                self._module.model.layers[1].mlp.down_proj.weight.mul_(256.0)


def trained(reset: bool) -> Progress:
    torch.set_num_threads(1)
    overrides = {"hidden_size": 32, "layers": 2, "heads": 4, "dropout": 0.0}
    module = CausalModel(name="glm-tiny", folder=None, overrides=overrides, vocabulary=40, pad_id=0, length=16).build(1)
    recipe = Recipe(
        learning_rate=1e-2, weight_decay=0.0, batch_size=8, warmup_share=0.1, schedule="linear", label_smoothing=0.0, token_dropout=0.0,
        gradient_clip=1.0, steps=STEPS, report=(BROKEN - 1, STEPS), seed=1,
    )  # fmt: skip
    engine = PlainEngine(module, recipe, 1, CausalLM())
    heard: list[Callback] = [_Flip(module), *([ExplosionReset(engine)] if reset else [])]
    return run(engine, _Feed(), _Judge(), recipe, callbacks=heard)


def test_a_run_that_explodes_ends_better_with_the_reset_than_without() -> None:
    on, off = trained(True), trained(False)
    assert on.notes[NOTE][0] == BROKEN + 1
    assert NOTE not in off.notes
    before = on.validation[0][1]
    assert on.validation[0] == off.validation[0]
    assert on.validation[-1][1] < before < off.validation[-1][1]


def test_the_abnormal_layer_is_the_one_that_moved_most_for_its_size() -> None:
    good = {"model.layers.0.w": torch.ones(4), "model.layers.1.w": torch.ones(4) * 100, "model.norm.weight": torch.ones(2)}
    now = {**good, "model.layers.0.w": torch.ones(4) * 3, "model.layers.1.w": torch.ones(4) * 110}
    assert abnormal(good, now) == "model.layers.0"
    now["model.norm.weight"] = torch.tensor([1.0, float("nan")])
    assert abnormal(good, now) == "model.norm"


@pytest.mark.parametrize(
    ("name", "layer"),
    [
        ("model.layers.12.mlp.up.weight", "model.layers.12"), ("transformer.h.3.attn.bias", "transformer.h.3"),
        ("bert.encoder.layer.0.output.dense.weight", "bert.encoder.layer.0"), ("lm_head.weight", "lm_head"),
    ],
)  # fmt: skip
def test_layers_by_name(name: str, layer: str) -> None:
    assert layer_of(name) == layer


class _Engine:
    rank, ranks, accumulation, norm, resumable = 0, 1, 1, 0.0, True


@pytest.mark.parametrize("name", [name for name in CALLBACKS.names() if name not in ("tensorboard", "wandb")])
def test_every_callback_is_made_by_name(name: str, tmp_path: Path) -> None:
    assert hasattr(made(name, {}, _Engine(), tmp_path), "on_step")  # type: ignore[arg-type]


def test_a_wrong_option_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no option 'patients'; it has: patience"):
        made("early-stop", {"patients": 3}, _Engine(), tmp_path)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="did you mean 'early-stop'"):
        made("early-stpo", {}, _Engine(), tmp_path)  # type: ignore[arg-type]
