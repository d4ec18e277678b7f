"""int8 models: how a trained model becomes one, what its folder says, and how it answers. The scheme has its one owner here.

A weight is a whole number from -127 to 127 times the scale of its row (an output of a linear layer, a token of an embedding). What a
linear layer reads is rounded to RANGE steps over the range it had on training rows, and cut off beyond. So what an
int8 layer makes of a row is the same to the bit whatever rows are beside it, and loading guesses nothing.

Why no library's own: on one thread of an AVX2 processor, GLM 256 x 4, 64 texts of 40 tokens, torchao 0.18 (int8 weights, dynamic
activations) took 16 times as long as float32 without its compiler, and its weight-only kind 1.3 times. torch.ao's quantize_dynamic is as
fast as this, but rounds what a layer reads over the whole batch, so that a text's logits moved by up to 0.1 with its neighbours (here:
not at all); it has no embeddings, and stores pickles. Its kernels are what is used here. A range for each row by itself is as steady and
a little nearer, and takes the gain (0.7 to 1.1 times float32, but for MiniLM's shape). Ranges of the first two days' texts gave the same
answers on all fourteen as ranges of all days did.

Which weights: those of linear layers and embeddings with LEAST rows and columns at least, that no second layer shares (tied ones).
Vectors (biases, norms), small heads, tables of segments and whatever is no such layer stay as they were.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from autoglm_ops.contracts.record import write_text
from autoglm_ops.errors import Tampered, UsageError

KEY = "quantization_config"
"""Of config.json, where others look for it too. Whoever opens a folder here asks it first (`put`, and `models.read_config`, which refuses
it for training)."""
FILE = "int8.safetensors"
"""The weights, not under the usual name: transformers 5.23 only warns of a method it does not know, and would take the numbers in
model.safetensors for weights. Of this folder it says that there is no such file."""
WHOLE = "model.safetensors"
"""The weights of a model in full precision."""
METHOD = "autoglm-int8"
VERSION = 1
LEAST = 16
"""Rows and columns of a matrix worth it: less gains no bytes, and a head decides by these few numbers alone."""
RANGE = 127
"""Steps of what a layer reads. All 255 would overflow the 16 bits in which processors without VNNI add two products."""

KERNELS = "fbgemm"
"""torch's engine of these; it serves x86 processors."""

Weights = dict[str, torch.Tensor]


class Int8Linear(nn.Module):
    """A linear layer by torch's fbgemm kernels: x [..., columns] to [..., rows], float32. Its numbers are put in, then it is packed."""

    weight: torch.Tensor
    weight_scale: torch.Tensor
    input_range: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, rows: int, columns: int, bias: bool) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(rows, columns, dtype=torch.int8, device="meta"))
        self.register_buffer("weight_scale", torch.empty(rows, device="meta"))
        self.register_buffer("input_range", torch.empty(2, device="meta"))
        self.register_buffer("bias", torch.empty(rows, device="meta") if bias else None)

    def pack(self) -> None:
        """Lay the weights out for the kernel, and let go of them: no state can be taken from here on."""
        self._low, self._high = self.input_range.tolist()
        self._step = (self._high - self._low) / RANGE
        self._zero = round(-self._low / self._step)
        scales, zeros = self.weight_scale.double(), torch.zeros(len(self.weight_scale), dtype=torch.long)
        weight = torch._make_per_channel_quantized_tensor(self.weight, scales, zeros, 0)
        self._packed = torch.ops.quantized.linear_prepack(weight, self.bias)
        del self.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        answer: torch.Tensor = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            x.clamp(self._low, self._high), self._step, self._zero, self._packed
        )
        return answer


class Int8Embedding(nn.Module):
    """A table [tokens, columns] of which the rows asked for become float32."""

    weight: torch.Tensor
    weight_scale: torch.Tensor

    def __init__(self, rows: int, columns: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.empty(rows, columns, dtype=torch.int8, device="meta"))
        self.register_buffer("weight_scale", torch.empty(rows, device="meta"))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.weight[ids] * self.weight_scale[ids].unsqueeze(-1)


class Hollow(TorchFunctionMode):
    """Within it, what layers make to be filled takes no memory: the model that `put` fills is never there in full precision."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return func(*args, **(kwargs or {}) | ({"device": "meta"} if func is torch.empty else {}))


def rounded(weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """A float32 matrix [rows, columns] as int8 of the same shape and the scale of each row, above 0.

    scale × number is within scale / 2 of the weight (Jacob et al. 2018, arXiv:1712.05877, symmetric).
    """
    scale = (weight.abs().amax(1) / RANGE).clamp_min(torch.finfo(torch.float32).tiny)
    return (weight / scale[:, None]).round().clamp(-RANGE, RANGE).to(torch.int8), scale


def fits(module: nn.Module) -> tuple[str, ...]:
    """The layers of `module` whose weights become int8, by the rule above."""
    shared = Counter(id(layer.weight) for layer in module.modules() if isinstance(layer, nn.Linear | nn.Embedding))
    return tuple(
        name
        for name, layer in module.named_modules()
        if type(layer) in (nn.Linear, nn.Embedding) and min(layer.weight.shape) >= LEAST and shared[id(layer.weight)] == 1
    )


def quantise(module: Any, run: Callable[[Any], object]) -> tuple[Weights, dict[str, Any]]:
    """Make `module`, float32 on CPU, an int8 model in place; returns its weights as they are stored, and what config.json says of them.

    run: feeds the module training rows, which show the range of what each layer reads. Raises UsageError where this machine or the
    model has nothing to do it with.
    """
    _require_kernels()
    names = fits(module)
    if not names:
        raise UsageError(
            f"train.quantization = int8: {type(module).__name__} has no linear layer or embedding of {LEAST} rows and columns that "
            "stands alone; set it to none"
        )
    ranges = _ranges(module, names, run)
    for name in names:
        layer = module.get_submodule(name)
        made = _empty(layer)
        made.weight, made.weight_scale = rounded(layer.weight.detach())
        if isinstance(made, Int8Linear):
            made.bias = None if layer.bias is None else layer.bias.detach().clone()
            made.input_range = torch.tensor(ranges[name])
        _put(module, name, made)
    weights = {name: tensor.detach().clone().contiguous() for name, tensor in module.state_dict().items()}
    pack(module)
    return weights, {"quant_method": METHOD, "version": VERSION, "modules": list(names)}


def rewrite(folder: Path, module: Any, run: Callable[[Any], object]) -> tuple[int, int]:
    """`quantise` the `module` that `folder` was saved from, and make it the folder of what came out.

    Returns how many layers became int8, and how many numbers stayed as they were or were added.
    """
    from safetensors.torch import save_file

    weights, told = quantise(module, run)
    save_file(weights, folder / FILE, metadata={"format": "pt"})
    (folder / WHOLE).unlink()
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    write_text(folder / "config.json", json.dumps({**config, KEY: told}, indent=2, sort_keys=True) + "\n")
    return len(told["modules"]), sum(tensor.numel() for tensor in weights.values() if tensor.dtype != torch.int8)


def weights_of(config: Mapping[str, Any]) -> str:
    """The file that holds the weights of a folder with this config.json."""
    return WHOLE if config.get(KEY) is None else FILE


def put(module: Any, weights: Weights, told: object) -> None:
    """Make a freshly built `module` the model that was stored: `told` is config.json's KEY, None of one in full precision.

    Raises Tampered when weights and `told` do not fit together or are none, UsageError where this machine has no kernels for int8.
    """
    if told is None:
        whole = next((name for name, tensor in weights.items() if tensor.dtype == torch.int8), None)
        if whole is not None:
            raise Tampered(f"{WHOLE}: {whole} is int8, and config.json has no {KEY} to read it by; {_AGAIN}")
        module.load_state_dict(weights, strict=True)
        return
    names = _names(told)
    layers = dict(module.named_modules())
    for name in names:
        if type(layers.get(name)) not in (nn.Linear, nn.Embedding):
            raise Tampered(f"config.json: {KEY} names {name!r}, which is no linear layer or embedding of the model; {_AGAIN}")
        _put(module, name, _empty(layers[name]))
    _check(module, weights, names)
    _require_kernels()
    module.load_state_dict(weights, strict=True, assign=True)
    pack(module)


_AGAIN = "train the model again"


def _names(told: object) -> tuple[str, ...]:
    if not isinstance(told, dict) or (told.get("quant_method"), told.get("version")) != (METHOD, VERSION):
        said = {key: told.get(key) for key in ("quant_method", "version")} if isinstance(told, dict) else told
        raise Tampered(f"config.json: {KEY} says {said}; this version reads {METHOD} {VERSION} alone; {_AGAIN}")
    names = told.get("modules")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise Tampered(f"config.json: {KEY}.modules must list the layers that are int8; {_AGAIN}")
    return tuple(names)


def _check(module: nn.Module, weights: Weights, names: tuple[str, ...]) -> None:
    """Raise Tampered naming the first tensor that is not what the model needs."""
    wanted = module.state_dict()
    for name in sorted(wanted.keys() | weights.keys()):
        if name not in weights or name not in wanted:
            what = "is missing" if name not in weights else "belongs to no layer"
            raise Tampered(f"{FILE}: {name} {what}; {_AGAIN}")
        found, needed = weights[name], wanted[name]
        if found.shape != needed.shape or found.dtype != needed.dtype:
            kinds = [f"{tensor.dtype} {list(tensor.shape)}".removeprefix("torch.") for tensor in (found, needed)]
            raise Tampered(f"{FILE}: {name} is {kinds[0]} and must be {kinds[1]}; {_AGAIN}")
    for name in names:
        _check_scale(f"{name}.weight_scale", weights)
        low, high = weights.get(f"{name}.input_range", torch.tensor([0.0, 1.0])).tolist()
        if not (-float("inf") < low <= 0 <= high < float("inf") and low < high):
            raise Tampered(f"{FILE}: {name}.input_range is {low:g} to {high:g}; it must hold 0 and be wide; {_AGAIN}")


def _check_scale(name: str, weights: Weights) -> None:
    scale = weights[name]
    wrong = scale[~((scale > 0) & scale.isfinite())]
    if len(wrong):
        raise Tampered(f"{FILE}: {name} holds {wrong[0]:g}; a scale is a number above 0; {_AGAIN}")


def _empty(layer: nn.Module) -> Int8Linear | Int8Embedding:
    if isinstance(layer, nn.Linear):
        return Int8Linear(layer.out_features, layer.in_features, layer.bias is not None)
    assert isinstance(layer, nn.Embedding)
    return Int8Embedding(layer.num_embeddings, layer.embedding_dim)


def _put(module: nn.Module, name: str, layer: nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(module.get_submodule(parent), leaf, layer)


def _ranges(module: nn.Module, names: tuple[str, ...], run: Callable[[Any], object]) -> dict[str, tuple[float, float]]:
    """Lowest and highest value that each linear layer reads while `run` feeds the module, 0 included."""
    found: dict[str, tuple[float, float]] = {}

    def watch(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def seen(_: Any, given: tuple[torch.Tensor, ...]) -> None:
            low, high = torch.aminmax(given[0])
            before = found.get(name, (0.0, 0.0))
            found[name] = (min(before[0], float(low)), max(before[1], float(high)))

        return seen

    linear = [name for name in names if isinstance(module.get_submodule(name), nn.Linear)]
    hooks = [module.get_submodule(name).register_forward_pre_hook(watch(name)) for name in linear]
    run(module)
    for hook in hooks:
        hook.remove()
    return {name: _wide(found.get(name, (0.0, 0.0))) for name in linear}


def _wide(ends: tuple[float, float]) -> tuple[float, float]:
    """A layer that read nothing but zeros has some range all the same."""
    return ends if ends[0] < ends[1] else (0.0, 1.0)


def _require_kernels() -> None:
    if KERNELS not in torch.backends.quantized.supported_engines:
        raise UsageError(
            "an int8 model needs torch's fbgemm kernels, which are of x86 processors; train.quantization = none needs none"
        )


def pack(module: nn.Module) -> None:
    """Make the int8 layers of `module` ready to be asked; no state can be taken from them afterwards.

    Under the name of KERNELS: torch's own choice, where there is VNNI, lays weights out for kernels without the one that is asked here.
    """
    before = torch.backends.quantized.engine
    torch.backends.quantized.engine = KERNELS
    try:
        for layer in module.modules():
            if isinstance(layer, Int8Linear):
                layer.pack()
    finally:
        torch.backends.quantized.engine = before
