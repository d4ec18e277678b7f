"""Packed rows answer like rows of their own, no tokens are lost, and a model that cannot keep them apart gets padding."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.errors import BadData
from autoglm_ops.training.batch import DictBatch
from autoglm_ops.training.config import TrainerConfig
from autoglm_ops.training.instructions import Example
from autoglm_ops.training.objective import IGNORED, CausalLM
from autoglm_ops.training.packing import ExampleLoader, keeps_apart, pack
from autoglm_ops.training.sources import module_of

FAMILIES = {
    "llama": {"model_type": "llama", "num_key_value_heads": 2},
    "qwen2": {"model_type": "qwen2", "num_key_value_heads": 2},
    "glm": {"model_type": "glm", "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0},
    "glm4": {"model_type": "glm4", "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0},
}
SIZE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}


def model(family: str) -> torch.nn.Module:
    return module_of(TrainerConfig(model={**SIZE, **FAMILIES[family]}))


def examples(count: int = 20, longest: int = 14) -> list[Example]:
    random = np.random.default_rng(1)
    found = []
    for _ in range(count):
        ids = random.integers(1, 64, random.integers(2, longest)).astype(np.int32)
        labels = np.where(random.random(len(ids)) < 0.3, IGNORED, ids).astype(np.int64)
        labels[-1] = ids[-1]
        found.append(Example(ids, labels))
    return found


@given(lengths=st.lists(st.integers(1, 50), max_size=80), more=st.integers(0, 50))
def test_bins_hold_everything_once_and_leave_no_two_half_empty(lengths: list[int], more: int) -> None:
    width = max(lengths, default=1) + more
    bins = pack(lengths, width)
    loads = [sum(lengths[place] for place in found) for found in bins]
    assert sorted(place for found in bins for place in found) == list(range(len(lengths)))
    assert all(load <= width for load in loads)
    assert sum(2 * load <= width for load in loads) <= 1


def test_one_that_fits_no_row_is_named() -> None:
    with pytest.raises(BadData, match="example 1 has 9 tokens and a row takes 8"):
        pack([3, 9], 8)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_packed_batch_has_the_loss_of_a_padded_one(family: str) -> None:
    torch.set_num_threads(1)
    module = model(family).eval()
    given = examples()
    losses = {}
    for packed in (True, False):
        loader = ExampleLoader(given, batch_size=3, width=32, pad_id=0, module=module if packed else None)
        assert loader.packed == packed
        total, items, objective = 0.0, 0, CausalLM()
        for raw in loader:
            batch = DictBatch({name: value for name, value in raw.items() if name != "labels"}, raw["labels"])
            with torch.no_grad():
                logits = module(**batch.given, use_cache=False).logits
            total += float(objective.loss(logits, batch, 1.0))
            items += objective.items(batch)
        losses[packed] = (total / items, items)
    assert losses[True][1] == losses[False][1]
    assert losses[True][0] == pytest.approx(losses[False][0], abs=1e-6)


class LooksAcross(torch.nn.Module):
    """Adds a small share of the row's mean to every position, as an unmasked attention does."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(64, 64)
        self.share = share

    def forward(self, input_ids: torch.Tensor, position_ids: torch.Tensor) -> SimpleNamespace:
        found = self.table(input_ids)
        return SimpleNamespace(logits=found + self.share * found.mean(1, keepdim=True))


class TakesNoPositions(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(64, 64)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table(input_ids))


@pytest.mark.parametrize(
    "module", [LooksAcross(1e-5), LooksAcross(0.5), TakesNoPositions()], ids=["hardly", "much", "no-positions"]
)
def test_a_model_that_looks_across_gets_padding_and_it_is_said(module: Any, caplog: pytest.LogCaptureFixture) -> None:
    assert not keeps_apart(module, 64)
    loader = ExampleLoader(examples(), batch_size=4, width=32, pad_id=0, module=module)
    assert set(next(iter(loader))) == {"input_ids", "labels", "attention_mask"}
    assert "does not keep packed examples apart" in caplog.text


def test_rows_are_fuller_and_the_order_follows_seed_and_epoch() -> None:
    module = model("llama")
    loader = ExampleLoader(examples(200), batch_size=4, width=32, pad_id=0, module=module)
    assert loader.filled > 0.93
    assert len(list(loader)) == len(loader) < 200 // 4
    first = [batch["input_ids"] for batch in loader]
    assert all(torch.equal(left, right["input_ids"]) for left, right in zip(first, loader, strict=True))
    loader.set_epoch(1)
    assert not all(torch.equal(left, right["input_ids"]) for left, right in zip(first, loader, strict=True))
