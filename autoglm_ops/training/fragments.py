"""Where an optimizer keeps what a run is continued from: fp32 weights, moments and step counts, whole or as this rank's part of them.

Each optimizer's tensors are named by the parameter and the place in it (`exp_avg@512:layers.0.weight` starts at element 512), whatever
DeepSpeed made of it: whole parameters at ZeRO 0 (torch's own optimizer, or fp16/unfused_optimizer.py, whose masters are apart); a
rank's run of a flat group at ZeRO 1 and 2 and in bf16_optimizer.py (`param._hp_mapping`, utils/tensor_fragment.py); a rank's part of
every parameter at ZeRO 3 (stage3.py, `grad_position`). So parts fit together again on any number of ranks and at any stage.
Padding is left out: it is zero, stays zero, and differs between layouts. A weight that tensor parallelism cuts is named by its slice
instead (`exp_avg@0.2.1:…` is the first of two along dimension 1) and is whole again once all slices are there.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch

from autoglm_ops.training.progress import Weights

Parts = dict[tuple[str, str], list[tuple[int, torch.Tensor]]]
"""(kind, parameter) -> (first element, tensor), in order."""

_SCALER = ("cur_scale", "cur_iter", "last_overflow_iter", "cur_hysteresis")


class Slot(NamedTuple):
    """Elements `start` to `start + size` of parameter `name` lie in the optimizer's tensor `flat`, from `offset` on."""

    name: str
    start: int
    size: int
    flat: torch.Tensor
    offset: int

    def within(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.detach().view(-1).narrow(0, self.offset, self.size)


def live(module: Any, optimizer: Any) -> Weights:
    """This rank's state as views of what the optimizer works on (no copies; they change with the next step)."""
    base = getattr(optimizer, "optimizer", optimizer)
    found: Weights = {}
    for slot in slots(module, optimizer):
        place = f"@{slot.start}:{slot.name}"
        found[f"master{place}"] = slot.within(slot.flat)
        for kind, value in base.state.get(slot.flat, {}).items():
            scalar = kind == "step"
            found[kind + place] = torch.as_tensor(value, dtype=torch.float32).reshape(()) if scalar else slot.within(value)
    for name, buffer in buffers(module):
        found[f"buffer@0:{name}"] = buffer.detach()
    for name, number in _scaler(optimizer).items():
        found[f"scaler@0:{name}"] = torch.tensor(float(number), dtype=torch.float64)
    for number, group in enumerate(base.param_groups):
        if "step" in group:  # DeepSpeed's fused Adam counts per group
            found[f"group-step@0:{number}"] = torch.tensor(float(group["step"]), dtype=torch.float64)
    return found


def put_state(module: Any, optimizer: Any, state: Weights, weights: Weights) -> None:
    """The inverse of `live`, from the state of one rank of the same layout or of all ranks of another. Every rank calls it.

    Whole `weights` by name go before those in `state`, of the learned parameters that are among them. Raises ValueError when `state` does not hold what the module needs.
    """
    base = getattr(optimizer, "optimizer", optimizer)
    parts = parts_of(state) | {("master", name): [(0, tensor)] for name, tensor in weights.items()}
    with torch.no_grad():
        for slot in slots(module, optimizer):
            slot.within(slot.flat).copy_(assembled(parts, "master", slot))
            kinds = kinds_of(parts, slot.name)
            if not kinds:
                base.state.pop(slot.flat, None)  # a state from before the first step
            entry = base.state[slot.flat]
            for kind in kinds:
                if kind == "step":
                    entry[kind] = parts[kind, slot.name][0][1].clone()
                    continue
                if kind not in entry:
                    entry[kind] = torch.zeros_like(slot.flat)
                slot.within(entry[kind]).copy_(assembled(parts, kind, slot))
        for name, buffer in buffers(module):
            buffer.copy_(parts["buffer", name][0][1])
        _to_module(optimizer)
    for name in _scaler(optimizer):
        if ("scaler", name) not in parts:
            continue  # of a layout that scales no loss, as this one need not: one that must is another run
        setattr(_scaler_of(optimizer), name, _number(parts["scaler", name][0][1]))
    for number, group in enumerate(base.param_groups):
        if ("group-step", str(number)) in parts:
            group["step"] = int(parts["group-step", str(number)][0][1])


def slots(module: Any, optimizer: Any) -> Iterator[Slot]:
    """Where this rank's part of each trained parameter lies."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            slot = _slot(name, parameter, optimizer)
            if slot is not None:
                yield slot


def _slot(name: str, parameter: Any, optimizer: Any) -> Slot | None:
    if hasattr(parameter, "ds_id"):  # ZeRO 3
        group, offset, size = optimizer.grad_position[optimizer.get_param_id(parameter)]
        start = parameter.partition_numel() * optimizer._get_param_partition_rank(parameter)
        size = min(size, parameter.ds_numel - start)
        return Slot(name, start, size, optimizer.fp32_partitioned_groups_flat[group], offset) if size > 0 else None
    mapping = getattr(parameter, "_hp_mapping", None)
    flats = getattr(optimizer, "single_partition_of_fp32_groups", None) or getattr(
        optimizer, "fp32_groups_flat_partition", None
    )
    if flats is not None:  # ZeRO 1, 2 and bf16 with fp32 gradients
        if mapping is None:
            return None
        mine, theirs = mapping.hp_fragment_address, mapping.lp_fragment_address
        return Slot(name, theirs.start, theirs.numel, flats[mapping.param_group_index], mine.start)
    return Slot(name, 0, parameter.numel(), _masters(optimizer).get(id(parameter), parameter), 0)


def _masters(optimizer: Any) -> dict[int, torch.Tensor]:
    """Of ZeRO 0 in 16 bits: the fp32 copy by the parameter it is of."""
    pairs = zip(getattr(optimizer, "fp16_groups", ()), getattr(optimizer, "fp32_groups", ()), strict=True)
    return {id(half): master for halves, masters in pairs for half, master in zip(halves, masters, strict=True)}


def _to_module(optimizer: Any) -> None:
    """Bring the masters into the weights that the module computes with."""
    if hasattr(optimizer, "fp32_partitioned_groups_flat"):
        for number, flat in enumerate(optimizer.fp32_partitioned_groups_flat):
            optimizer.fp16_partitioned_groups_flat[number].data.copy_(flat.data)
            optimizer._unflatten_partitioned_parameters(number)
        if optimizer.persistent_parameters:
            optimizer.persistent_parameters[0].partition(optimizer.persistent_parameters)
            optimizer.persistent_parameters[0].all_gather(optimizer.persistent_parameters)
    elif hasattr(optimizer, "update_lp_params"):
        optimizer.update_lp_params()
    else:
        for halves, masters in zip(getattr(optimizer, "fp16_groups", ()), getattr(optimizer, "fp32_groups", ()), strict=True):
            for half, master in zip(halves, masters, strict=True):
                half.data.copy_(master.data)


def buffers(module: Any) -> Iterator[tuple[str, torch.Tensor]]:
    kept = module.state_dict(keep_vars=True).keys()
    return ((name, buffer) for name, buffer in module.named_buffers() if name in kept)


def _scaler_of(optimizer: Any) -> Any:
    return getattr(optimizer, "loss_scaler", None) or getattr(optimizer, "loss_scale_config", None)


def _scaler(optimizer: Any) -> dict[str, float]:
    """The loss scale's counters of an fp16 run; none elsewhere matters, and those of other runs are numbers all the same."""
    scaler = _scaler_of(optimizer)
    found = {name: getattr(scaler, name, None) for name in _SCALER}
    return {name: number for name, number in found.items() if isinstance(number, int | float)}


def _number(value: torch.Tensor) -> float | int:
    number = float(value)
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def parts_of(state: Weights) -> Parts:
    """`state` by what it is of. A weight of which only some slices are there is left out."""
    found: Parts = {}
    sliced: dict[tuple[str, str], dict[int, torch.Tensor]] = {}
    cuts: dict[tuple[str, str], tuple[int, int]] = {}
    for key, tensor in state.items():
        place, _, name = key.partition(":")
        kind, _, start = place.partition("@")
        if "." in start:
            index, count, dim = map(int, start.split("."))
            sliced.setdefault((kind, name), {})[index] = tensor
            cuts[kind, name] = count, dim
            continue
        found.setdefault((kind, name), []).append((int(start), tensor))
    for owner, slices in sliced.items():
        count, dim = cuts[owner]
        if len(slices) == count:
            found[owner] = [(0, torch.cat([slices[index] for index in range(count)], dim))]
    for pieces in found.values():
        pieces.sort(key=lambda piece: piece[0])
    return found


def moments_of(state: Weights) -> dict[str, list[str]]:
    """By parameter, what the optimizer keeps of it, whole in `state` or not."""
    found: dict[str, list[str]] = {}
    for key in sorted(state):
        place, _, name = key.partition(":")
        kind = place.partition("@")[0]
        if kind not in ("master", "buffer") and kind not in found.setdefault(name, []):
            found[name].append(kind)
    return found


def kinds_of(parts: Parts, name: str) -> list[str]:
    return [kind for kind, owner in parts if owner == name and kind not in ("master", "buffer")]


def assembled(parts: Parts, kind: str, slot: Slot) -> torch.Tensor:
    """Elements of one slot, from the pieces that hold them. Raises ValueError where one is missing."""
    at, stop, taken = slot.start, slot.start + slot.size, []
    for start, tensor in parts.get((kind, slot.name), ()):
        flat = tensor.reshape(-1)
        if start <= at < min(stop, start + flat.numel()):
            taken.append(flat[at - start : stop - start])
            at += taken[-1].numel()
    if at != stop:
        raise ValueError(f"the checkpoint holds {kind} of {slot.name} up to element {at}, and {stop} are needed")
    return torch.cat(taken) if len(taken) > 1 else taken[0]
