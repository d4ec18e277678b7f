"""The engine of one process: plain torch, nothing to start. Tuning trials run on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from autoglm_ops.training.batch import Batch
from autoglm_ops.training.loop import Weights, optimizer_groups
from autoglm_ops.training.recipe import Recipe

BETAS = (0.9, 0.98)


class PlainEngine:
    """AdamW, gradient clipping, one rank."""

    rank = 0
    ranks = 1

    def __init__(self, module: Any, recipe: Recipe, accumulation: int = 1) -> None:
        self.accumulation = accumulation
        self._module = module
        self._recipe = recipe
        self._optimizer = torch.optim.AdamW(optimizer_groups(module, recipe.weight_decay), lr=0.0, betas=BETAS, fused=True)

    def step(self, batches: Sequence[Batch], rate: float) -> float:
        self._module.train()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        total = 0.0
        for batch in batches:
            logits = self._module(input_ids=batch.ids, attention_mask=batch.mask).logits
            loss = cross_entropy(logits, batch.labels, label_smoothing=self._recipe.label_smoothing)
            torch.autograd.backward(loss / len(batches))
            total += float(loss.detach()) / len(batches)
        torch.nn.utils.clip_grad_norm_(self._module.parameters(), self._recipe.gradient_clip)
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return total

    def logits(self, batch: Batch) -> torch.Tensor:
        self._module.eval()
        with torch.inference_mode():
            out: torch.Tensor = self._module(input_ids=batch.ids, attention_mask=batch.mask).logits.float()
        return out

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values

    def weights(self) -> Weights:
        return {name: tensor.detach().clone() for name, tensor in self._module.state_dict().items()}

    def state(self) -> Weights:
        return flat_state(self._optimizer)

    def restore(self, weights: Weights, state: Weights) -> None:
        self._module.load_state_dict(weights)
        load_flat_state(self._optimizer, state)


def flat_state(optimizer: Any) -> Weights:
    """A torch optimizer's per-parameter tensors as `<parameter number>.<name>`, so that safetensors can hold them."""
    state = optimizer.state_dict()["state"]
    return {
        f"{number}.{name}": torch.as_tensor(value).detach().clone()
        for number, entry in state.items()
        for name, value in entry.items()
    }


def load_flat_state(optimizer: Any, flat: Weights) -> None:
    """The inverse of `flat_state`."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for key, tensor in flat.items():
        number, _, name = key.partition(".")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
