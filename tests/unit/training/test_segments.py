"""Attention by segments is SDPA through the block-diagonal mask, forward and backward; and it steps aside for every other mask."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.training import segments
from autoglm_ops.training.config import TrainerConfig
from autoglm_ops.training.sources import module_of

SIZE = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama", "num_key_value_heads": 2},
    "glm": {"model_type": "glm", "num_key_value_heads": 4, "head_dim": 8, "pad_token_id": 0},
    "glm4": {"model_type": "glm4", "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0},
}


def both(config: dict[str, Any]) -> tuple[Any, Any]:
    """(as transformers has it, by segments), equal weights."""
    plain = module_of(TrainerConfig(model={**SIZE, **config})).eval()
    ours = copy.deepcopy(plain)
    segments.use(ours)
    return plain, ours


def packed(*rows: tuple[int, ...]) -> dict[str, torch.Tensor]:
    positions = torch.stack([torch.cat([torch.arange(length) for length in row]) for row in rows])
    ids = torch.randint(1, 64, positions.shape, generator=torch.Generator().manual_seed(3))
    return {"input_ids": ids, "position_ids": positions}


def calls(module: Any, batch: dict[str, torch.Tensor]) -> tuple[torch.Tensor, int]:
    """(logits, how many examples were attended to by themselves)."""
    count, original = 0, segments._segments

    def counted(*given: Any) -> list[list[int]] | None:
        nonlocal count
        found = original(*given)
        count += sum(map(len, found or []))
        return found

    with patch.object(segments, "_segments", counted):
        return module(**batch, use_cache=False).logits, count


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_through_the_mask(family: str) -> None:
    plain, ours = both(FAMILIES[family])
    batch = packed((5, 9, 1, 1, 8), (20, 4))
    expected = plain(**batch, use_cache=False).logits
    found, count = calls(ours, batch)
    assert count == 2 * 7  # two layers, seven examples
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    expected.square().mean().backward()
    found.square().mean().backward()
    for (name, left), right in zip(plain.named_parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(right.grad, left.grad, rtol=1e-3, atol=1e-7, msg=name)


def test_a_window_shorter_than_an_example_is_left_to_the_mask() -> None:
    window = {"model_type": "mistral", "num_key_value_heads": 2, "sliding_window": 4}
    plain, ours = both(window)
    batch = packed((9, 6, 9))
    found, count = calls(ours, batch)
    assert count == 0
    assert torch.equal(found, plain(**batch, use_cache=False).logits)
    assert calls(ours, packed((3, 4, 2)))[1] == 2 * 3  # the window never ends inside these


def test_padded_rows_and_single_examples_keep_their_kernel() -> None:
    plain, ours = both(FAMILIES["llama"])
    ids = torch.randint(1, 64, (2, 8))
    mask = torch.tensor([[1] * 8, [1] * 5 + [0] * 3])
    for batch in ({"input_ids": ids, "attention_mask": mask}, {"input_ids": ids}, packed((8,))):
        found, count = calls(ours, batch)
        assert count == 0
        assert torch.equal(found, plain(**batch, use_cache=False).logits)


def test_what_attends_otherwise_stays_so_and_nothing_of_it_is_saved(tmp_path: Path) -> None:
    eager = module_of(TrainerConfig(model={**SIZE, **FAMILIES["llama"]}))
    eager.set_attn_implementation("eager")
    segments.use(eager)
    assert eager.config._attn_implementation == "eager"
    segments.use(torch.nn.Linear(2, 2))
    _, ours = both(FAMILIES["llama"])
    ours.save_pretrained(tmp_path)
    assert segments.NAME not in (tmp_path / "config.json").read_text()


@settings(max_examples=60, deadline=None)
@given(row=st.lists(st.integers(1, 12), min_size=1, max_size=8))
def test_lengths_are_read_from_positions(row: list[int]) -> None:
    assert segments._lengths(packed(tuple(row))["position_ids"][0]) == row
