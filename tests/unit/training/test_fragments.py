"""State in pieces fits together again, whatever the pieces; and a plain engine's state is the whole of what it continues from."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.training import fragments
from autoglm_ops.training.fragments import Slot
from autoglm_ops.training.models import ModelSpec, build
from autoglm_ops.training.plain import PlainEngine
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.rows import RowFeed, Rows


def cut(size: int, borders: list[int]) -> list[tuple[int, int]]:
    edges = [0, *sorted({border % size for border in borders} - {0}), size]
    return list(itertools.pairwise(edges))


@given(st.integers(1, 60), st.lists(st.integers(0, 200), max_size=5), st.lists(st.integers(0, 200), max_size=5))
def test_any_cut_can_be_read_by_any_other(size: int, saved: list[int], wanted: list[int]) -> None:
    whole = torch.arange(size, dtype=torch.float32)
    parts = fragments.parts_of({f"exp_avg@{start}:w": whole[start:stop] for start, stop in cut(size, saved)})
    for start, stop in cut(size, wanted):
        slot = Slot("w", start, stop - start, torch.zeros(size), start)
        assert torch.equal(fragments.assembled(parts, "exp_avg", slot), whole[start:stop])


def test_a_missing_piece_is_named() -> None:
    parts = fragments.parts_of({"master@0:layer.weight": torch.zeros(4)})
    with pytest.raises(ValueError, match=r"holds master of layer.weight up to element 4, and 9 are needed"):
        fragments.assembled(parts, "master", Slot("layer.weight", 0, 9, torch.zeros(9), 0))


def engine(spec: ModelSpec) -> PlainEngine:
    recipe = Recipe(
        learning_rate=1e-2, weight_decay=0.1, batch_size=20, warmup_share=0.1, schedule="linear", label_smoothing=0.0,
        token_dropout=0.0, gradient_clip=1.0, steps=9, report=(9,), seed=3,
    )  # fmt: skip
    return PlainEngine(build(spec, 3), recipe)


def stepped(one: PlainEngine, arrays: dict[str, TokenArrays], steps: range) -> None:
    rows = Rows(arrays["train"], arrays["validation"], 0, 2)
    for step in steps:
        one.step(RowFeed(rows, one._recipe, one).take(step).batches, 1e-2)


def test_a_state_is_all_that_an_engine_continues_from(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    left, right = engine(spec), engine(spec)
    stepped(left, arrays, range(1, 4))
    right.restore({}, left.state())
    for one in (left, right):
        stepped(one, arrays, range(4, 7))
    assert all(torch.equal(tensor, right.weights()[name]) for name, tensor in left.weights().items())


def test_the_state_before_the_first_step_clears_what_came_after(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    one = engine(spec)
    before, weights = one.state(), one.weights()
    stepped(one, arrays, range(1, 3))
    assert any(name.startswith("exp_avg@") for name in one.live())
    one.restore({}, before)
    assert one.live().keys() == before.keys()
    assert all(torch.equal(tensor, one.weights()[name]) for name, tensor in weights.items())


def test_whole_weights_go_before_those_in_the_state(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    one = engine(spec)
    stepped(one, arrays, range(1, 3))
    name, tensor = next(iter(one.weights().items()))
    one.restore({name: tensor + 1}, one.state())
    assert torch.equal(one.weights()[name], tensor + 1)


def test_live_is_a_view_and_state_a_copy(arrays: dict[str, TokenArrays], spec: ModelSpec) -> None:
    one = engine(spec)
    live, copied = one.live(), one.state()
    stepped(one, arrays, range(1, 2))
    name = next(iter(live))
    assert not torch.equal(live[name], copied[name])


@pytest.mark.parametrize("dim", [0, 1])
def test_slices_of_a_weight_are_whole_again_once_all_are_there(dim: int) -> None:
    whole = torch.arange(15.0).reshape(3, 5)
    slices = {f"exp_avg@{index}.2.{dim}:w": part for index, part in enumerate(whole.chunk(2, dim))}
    ((start, joined),) = fragments.parts_of({**slices, "step@0:w": torch.tensor(3.0)})["exp_avg", "w"]
    assert start == 0
    assert torch.equal(joined, whole)
    slices.popitem()
    assert ("exp_avg", "w") not in fragments.parts_of(slices)
    assert fragments.moments_of({**slices, "step@0:w": torch.tensor(3.0), "master@0:w": whole}) == {"w": ["exp_avg", "step"]}
