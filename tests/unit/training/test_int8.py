"""int8: how far a weight moves, what stays, that the same weights are the same bytes, and what a loader refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.torch import save
from torch import nn

from autoglm_ops.errors import Tampered, UsageError
from autoglm_ops.training import artifact, int8

FINITE = st.floats(-(2.0**99), 2.0**99, width=32)


class Net(nn.Module):
    """An embedding, a tied pair, a wide layer, a biased one, a norm and a head of two."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(40, 32, padding_idx=0)
        self.shared = nn.Linear(32, 32, bias=False)
        self.twin = nn.Linear(32, 32, bias=False)
        self.twin.weight = self.shared.weight
        self.wide = nn.Linear(32, 64)
        self.plain = nn.Linear(64, 16, bias=False)
        self.norm = nn.LayerNorm(16)
        self.head = nn.Linear(16, 2)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        deep = torch.relu(self.wide(self.twin(self.shared(self.table(ids)))))
        answer: torch.Tensor = self.head(self.norm(self.plain(deep)))
        return answer


IDS = torch.arange(40).reshape(8, 5)


def net(seed: int = 1) -> Net:
    torch.manual_seed(seed)
    return Net().eval()


def run(module: Any) -> torch.Tensor:
    with torch.inference_mode():
        answer: torch.Tensor = module(IDS)
    return answer


def stored() -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    return int8.quantise(net(), run)


@settings(max_examples=300)
@given(arrays(np.float32, array_shapes(min_dims=2, max_dims=2, max_side=12), elements=FINITE))
def test_a_weight_is_within_half_a_scale_of_what_it_was(weight: np.ndarray) -> None:
    numbers, scale = int8.rounded(torch.from_numpy(weight))
    assert numbers.dtype == torch.int8 and numbers.abs().max() <= 127 and bool((scale > 0).all())
    back, wide = numbers.double() * scale.double()[:, None], scale.double()[:, None]
    assert bool(((back - torch.from_numpy(weight).double()).abs() <= wide * (0.5 + 1e-4)).all())


def test_what_is_rounded_follows_the_rule_and_the_rest_stays_bit_for_bit() -> None:
    before, (weights, told) = net().state_dict(), stored()
    assert told == {"quant_method": "autoglm-int8", "version": 1, "modules": ["table", "wide", "plain"]}
    small = {name for name, tensor in weights.items() if tensor.dtype == torch.int8}
    assert small == {"table.weight", "wide.weight", "plain.weight"}
    for name in before.keys() - small:
        assert torch.equal(weights[name], before[name]), name


def test_the_same_weights_are_the_same_bytes() -> None:
    assert save(stored()[0]) == save(stored()[0])
    artifact.check_weights("model.safetensors", save(stored()[0]))


def test_what_is_stored_answers_as_what_was_made_whatever_the_batch() -> None:
    made, again = net(), net(2)
    weights, told = int8.quantise(made, run)
    int8.put(again, weights, told)
    answer = run(again)
    assert torch.equal(answer, run(made)) and not torch.equal(answer, run(net()))
    assert torch.allclose(answer, run(net()), atol=0.05)
    for place in range(len(IDS)):
        with torch.inference_mode():
            assert torch.equal(again(IDS[place : place + 1]), answer[place : place + 1])


def test_a_layer_computes_with_what_the_file_says() -> None:
    """Against the same in float64: the input rounded over its range and cut off, the weights times their scales."""
    weights, _ = stored()
    layer = int8.Int8Linear(64, 32, bias=True)
    mine = {name.removeprefix("wide."): tensor for name, tensor in weights.items() if name.startswith("wide.")}
    layer.load_state_dict(mine, assign=True)
    low, high = (float(end) for end in layer.input_range)
    given = torch.randn(7, 32) * (high - low)
    matrix = layer.weight.double() * layer.weight_scale.double()[:, None]
    step, zero = (high - low) / 127, round(-low / ((high - low) / 127))
    read = ((given.double().clamp(low, high) / step).round() + zero - zero) * step
    int8.pack(layer)
    assert torch.allclose(
        layer(given).double(), read @ matrix.T + weights["wide.bias"].double(), atol=2 * step * float(matrix.abs().max())
    )


def test_rows_and_inputs_of_nothing_but_zeros_are_no_trouble() -> None:
    layer = nn.Sequential(nn.Linear(16, 16))
    nn.init.zeros_(layer[0].weight)
    weights, told = int8.quantise(layer, lambda module: module(torch.zeros(1, 16)))
    again = nn.Sequential(nn.Linear(16, 16))
    int8.put(again, weights, told)
    assert torch.equal(again(torch.zeros(1, 16))[0], weights["0.bias"])


def test_a_model_without_a_layer_that_fits_is_refused() -> None:
    with pytest.raises(UsageError, match="Sequential has no linear layer or embedding of 16 rows and columns"):
        int8.quantise(nn.Sequential(nn.Linear(8, 8)), lambda module: module(torch.zeros(1, 8)))


def test_a_machine_without_the_kernels_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    weights, told = stored()
    monkeypatch.setattr(int8, "KERNELS", "of another machine")
    for use in (lambda: int8.quantise(net(), run), lambda: int8.put(net(), weights, told)):
        with pytest.raises(UsageError, match="which are of x86 processors"):
            use()


Change = Callable[[dict[str, torch.Tensor], dict[str, Any]], object]
CHANGES: dict[str, tuple[Change, str]] = {
    "zero": (lambda w, _: w["wide.weight_scale"].__setitem__(3, 0.0), "wide.weight_scale holds 0; a scale is a number above 0"),
    "negative": (lambda w, _: w["wide.weight_scale"].__setitem__(3, -1.0), "wide.weight_scale holds -1; a scale is"),
    "nan": (lambda w, _: w["wide.weight_scale"].__setitem__(3, float("nan")), "wide.weight_scale holds nan; a scale is"),
    "shape": (lambda w, _: w.update({"wide.weight_scale": torch.ones(3)}), r"wide.weight_scale is float32 \[3\] and must be float32 \[64\]"),
    "dtype": (lambda w, _: w.update({"wide.weight": torch.ones(64, 32)}), r"wide.weight is float32 \[64, 32\] and must be int8"),
    "missing": (lambda w, _: w.pop("table.weight_scale"), "table.weight_scale is missing"),
    "extra": (lambda w, _: w.update({"head.weight_scale": torch.ones(2)}), "head.weight_scale belongs to no layer"),
    "range": (lambda w, _: w["wide.input_range"].copy_(torch.tensor([1.0, 2.0])), "wide.input_range is 1 to 2; it must hold 0"),
    "no range": (lambda w, _: w["wide.input_range"].zero_(), "wide.input_range is 0 to 0; it must hold 0 and be wide"),
    "method": (lambda _, t: t.update(quant_method="int4"), "'quant_method': 'int4', 'version': 1}; this version reads autoglm-int8 1"),
    "version": (lambda _, t: t.update(version=2), "'version': 2}; this version reads autoglm-int8 1 alone"),
    "modules": (lambda _, t: t.update(modules="wide"), "modules must list the layers that are int8"),
    "no layer": (lambda _, t: t["modules"].append("norm"), "names 'norm', which is no linear layer or embedding"),
    "unknown": (lambda _, t: t["modules"].append("head.3"), "names 'head.3', which is no linear layer or embedding"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "said"), CHANGES.values(), ids=CHANGES)
def test_what_was_tampered_with_is_refused_by_one_message(change: Change, said: str) -> None:
    weights, told = stored()
    change(weights, told)
    with pytest.raises(Tampered, match=said) as caught:
        int8.put(net(), weights, told)
    assert str(caught.value).endswith("train the model again")


@pytest.mark.parametrize("told", ["int8", 7, {}, []])
def test_a_config_that_says_it_otherwise_is_refused(told: object) -> None:
    with pytest.raises(Tampered, match="this version reads autoglm-int8 1 alone"):
        int8.put(net(), stored()[0], told)


def test_int8_numbers_without_a_word_in_the_config_are_not_taken_for_weights() -> None:
    with pytest.raises(Tampered, match=r"config\.json has no quantization_config to read it by"):
        int8.put(net(), stored()[0], None)


def test_the_kernels_choice_of_the_process_is_left_as_it_was(tmp_path: Path) -> None:
    before = torch.backends.quantized.engine
    stored()
    assert torch.backends.quantized.engine == before
