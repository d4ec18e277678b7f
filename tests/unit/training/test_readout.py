"""A classifier that computes what its answer hangs on, beside transformers' own with the same weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as some
from peft import LoraConfig, get_peft_model
from torch.nn.functional import cross_entropy
from torch.utils.flop_counter import FlopCounterMode

from autoglm_ops.planning import row_flops, shape_of_config
from autoglm_ops.training.readout import AutoModelForSequenceClassification, GlmForSequenceClassification

NEAR = {"rtol": 1e-4, "atol": 2e-6}


def assert_near(mine: torch.Tensor, other: torch.Tensor, what: str) -> None:
    """Equal but for the order of sums in float32, in which small values are lost beside large ones."""
    torch.testing.assert_close(
        mine, other, rtol=0, atol=2e-5 * max(1.0, float(other.detach().abs().max())), msg=lambda said: f"{what}: {said}"
    )


def config(
    heads: int = 4, shared: int = 1, layers: int = 1, dropout: float = 0.0, pad: int | None = 0
) -> transformers.GlmConfig:
    return transformers.GlmConfig(
        vocab_size=30, hidden_size=16 * heads, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=heads // shared, head_dim=16, max_position_embeddings=24, pad_token_id=pad, eos_token_id=0, use_cache=False,
        attention_dropout=dropout, num_labels=3,
    )  # fmt: skip


def pair(**options: Any) -> tuple[Any, Any]:
    """Ours and transformers' own: the same weights, larger than fresh ones so that attention is no mean."""
    torch.manual_seed(1)
    ours = GlmForSequenceClassification(config(**options)).eval()
    for parameter in ours.parameters():
        parameter.data += torch.randn_like(parameter) * 0.2
    theirs = transformers.GlmForSequenceClassification(ours.config).eval()
    theirs.load_state_dict(ours.state_dict())
    return ours, theirs


@settings(max_examples=25, deadline=None)
@given(
    rows=some.lists(some.lists(some.integers(0, 29), min_size=1, max_size=20), min_size=1, max_size=6),
    heads=some.sampled_from([1, 2, 4]),
    shared=some.booleans(),
    left=some.booleans(),
    masked=some.booleans(),
)
def test_logits_and_gradients_are_those_of_transformers(
    rows: list[list[int]], heads: int, shared: bool, left: bool, masked: bool
) -> None:
    """Any ids, the pad's own in the middle and at the end too; padded on either side; with a mask or without."""
    ours, theirs = pair(heads=heads, shared=2 if shared and heads > 1 else 1)
    width = max(map(len, rows))
    ids, mask = torch.zeros(len(rows), width, dtype=torch.long), torch.zeros(len(rows), width, dtype=torch.long)
    for place, row in enumerate(rows):
        where = slice(width - len(row), width) if left else slice(0, len(row))
        ids[place, where], mask[place, where] = torch.tensor(row), 1
    mask[(ids != 0).sum(1) == 0] = 1  # of a row that is padding alone the first token is read
    asked = {"input_ids": ids, "attention_mask": mask if masked else None}
    answers = [module(**asked).logits for module in (ours, theirs)]
    assert_near(*answers, "logits")
    for logits in answers:
        cross_entropy(logits, torch.arange(len(rows)) % 3).backward()
    for (name, mine), other in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert_near(mine.grad, other.grad, name)


def counted(module: Any, layer: str) -> list[int]:
    """How many rows `layer` is given, call by call, from here on."""
    seen: list[int] = []
    module.get_submodule(layer).register_forward_pre_hook(lambda _, given: seen.append(given[0].shape[:-1].numel()))
    return seen


def test_what_the_answer_does_not_hang_on_is_not_computed() -> None:
    ours, theirs = pair()
    layers = ("self_attn.k_proj", "self_attn.v_proj", "self_attn.q_proj", "mlp")
    ids = torch.tensor([[5, 6, 5, 7], [6, 6, 5, 0]])
    mine, others = ([counted(module, f"model.layers.0.{layer}") for layer in layers] for module in (ours, theirs))
    ours(input_ids=ids)
    theirs(input_ids=ids)
    assert mine == [[4], [4], [2], [2]], "four distinct tokens, two rows"
    assert others == [[8]] * 4


def test_the_planner_counts_the_operations_that_are_done() -> None:
    """A row of the longest, no token of which comes twice. torch does not count attention on CPUs, here one part in a hundred."""
    ours, _ = pair()
    with FlopCounterMode(display=False) as counter:
        ours(input_ids=torch.arange(1, 25)[None])
    shape = shape_of_config(ours.config.to_dict(), task="classification", max_length=24, labels=3)
    assert counter.get_total_flops() == pytest.approx(row_flops(shape), rel=0.02)


@pytest.mark.parametrize(
    ("options", "asked"),
    [
        ({"layers": 2}, {}),
        ({}, {"output_hidden_states": True}),
        ({}, {"labels": torch.tensor([0, 1])}),
        ({}, {"use_cache": True}),
        ({}, {"position_ids": torch.tensor([[3, 4, 5, 9]])}),
    ],
)
def test_deeper_models_and_who_asks_for_more_get_transformers_own_way(options: dict[str, Any], asked: dict[str, Any]) -> None:
    ours, theirs = pair(**options)
    given = {"input_ids": torch.tensor([[5, 6, 5, 7], [6, 6, 5, 0]]), **asked}
    mine, other = ours(**given), theirs(**given)
    assert mine.keys() == other.keys() and torch.equal(mine.logits, other.logits)


def test_adapters_go_the_short_way_too() -> None:
    """peft asks for a dict with every call."""
    ours, theirs = pair()
    settings = LoraConfig(task_type="SEQ_CLS", r=2, target_modules=["q_proj", "k_proj"])
    adapted = get_peft_model(ours, settings).eval()
    seen = counted(ours, "model.layers.0.mlp")
    ids = torch.tensor([[5, 6, 5, 7], [6, 6, 5, 0]])
    torch.testing.assert_close(adapted(input_ids=ids).logits, theirs(input_ids=ids).logits, **NEAR)
    assert seen == [2]


def test_who_asks_for_a_tuple_gets_one() -> None:
    ours, theirs = pair()
    ids = torch.tensor([[5, 6, 5, 7]])
    (mine,), (other,) = (module(input_ids=ids, return_dict=False) for module in (ours, theirs))
    assert torch.equal(mine, other)


def test_embeddings_instead_of_ids_and_no_padding_token_go_the_same_way() -> None:
    ours, theirs = pair(pad=None)
    ids = torch.tensor([[5, 6, 5, 7]])
    assert torch.equal(ours(input_ids=ids).logits, theirs(input_ids=ids).logits)
    inner = ours.model.embed_tokens(ids)
    assert torch.equal(ours(inputs_embeds=inner).logits, theirs(inputs_embeds=inner).logits)
    with pytest.raises(ValueError, match="batch sizes > 1"):
        ours(input_ids=ids.repeat(2, 1))


def test_activations_that_are_to_be_computed_again_are() -> None:
    """Activation checkpointing is of whole layers."""
    ours, _ = pair()
    ours.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    seen = counted(ours, "model.layers.0.mlp")
    ids = torch.tensor([[5, 6, 5, 7], [6, 6, 5, 0]])
    ours.train()(input_ids=ids).logits.sum().backward()
    assert seen == [8, 8]
    ours.eval()(input_ids=ids)
    assert seen == [8, 8, 2]


def test_dropout_inside_attention_drops_in_training_alone() -> None:
    ours, _ = pair(dropout=0.5)
    ids = torch.tensor([[5, 6, 5, 7, 8, 9]])
    still, again = ours(input_ids=ids).logits, ours(input_ids=ids).logits
    assert torch.equal(still, again)
    assert not torch.allclose(ours.train()(input_ids=ids).logits, still)


def test_a_row_is_answered_alike_in_bfloat16() -> None:
    ours, theirs = (copy.deepcopy(module).to(torch.bfloat16) for module in pair())
    ids = torch.tensor([[5, 6, 5, 7], [6, 6, 5, 0]])
    mine, other = ours(input_ids=ids).logits, theirs(input_ids=ids).logits
    assert mine.dtype == other.dtype == torch.bfloat16
    torch.testing.assert_close(mine, other, rtol=0.05, atol=0.05)


def test_a_folder_is_anybodys_and_is_opened_as_ours(tmp_path: Path) -> None:
    ours, _ = pair()
    ours.save_pretrained(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["architectures"] == ["GlmForSequenceClassification"]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".py"] == []
    theirs = transformers.GlmForSequenceClassification.from_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert type(theirs) is transformers.GlmForSequenceClassification and type(again) is GlmForSequenceClassification
    assert type(AutoModelForSequenceClassification.from_config(ours.config)) is GlmForSequenceClassification
    ids = torch.tensor([[5, 6, 5, 7]])
    torch.testing.assert_close(again(input_ids=ids).logits, theirs(input_ids=ids).logits, **NEAR)
