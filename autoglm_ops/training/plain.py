"""The engine of one process: plain torch, nothing to start. Tuning trials and AutoGLMTrainer run on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.training import fragments
from autoglm_ops.training.batch import Fed
from autoglm_ops.training.objective import Classification, Objective, mean_items
from autoglm_ops.training.progress import Weights
from autoglm_ops.training.recipe import Recipe

BETAS = (0.9, 0.98)


class PlainEngine:
    """AdamW, gradient clipping, one rank, on the device the module's weights are on. Frozen weights stay as they are.

    `precision` "bf16" is mixed (Micikevicius et al. 2018, arXiv:1710.03740): products in bfloat16 by torch's autocast, weights, moments
    and losses in float32.
    """

    rank = reader = 0
    ranks = readers = 1
    resumable = True

    def __init__(
        self,
        module: Any,
        recipe: Recipe,
        accumulation: int = 1,
        objective: Objective | None = None,
        precision: Literal["fp32", "bf16"] = "fp32",
    ) -> None:
        self.accumulation = accumulation
        self.norm = 0.0
        self.before_update: Callable[[], None] = lambda: None
        self._module = module
        self._recipe = recipe
        self._objective = objective or Classification(recipe.label_smoothing)
        self._device = next(module.parameters()).device
        self._mixed = precision == "bf16"
        self._optimizer = torch.optim.AdamW(optimizer_groups(module, recipe.weight_decay), lr=0.0, betas=BETAS, fused=True)

    def step(self, batches: Sequence[Fed], rate: float) -> float:
        self._module.train()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        items = mean_items(self._objective, batches, self.ranks, self.add)
        total = 0.0
        for batch in batches:
            loss = self._objective.loss(self._forward(batch), batch, items)
            torch.autograd.backward(loss / len(batches))
            total += float(loss.detach()) / len(batches)
        self.norm = float(torch.nn.utils.clip_grad_norm_(self._module.parameters(), self._recipe.gradient_clip))
        self.before_update()
        self._optimizer.step()
        self._optimizer.zero_grad(set_to_none=True)
        return total

    def logits(self, batch: Fed) -> torch.Tensor:
        self._module.eval()
        with torch.inference_mode():
            return self._forward(batch).float().cpu()

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return values

    def weights(self) -> Weights:
        return learned(self._module)

    def live(self) -> Weights:
        return fragments.live(self._module, self._optimizer)

    def state(self) -> Weights:
        return {name: tensor.clone() for name, tensor in self.live().items()}

    def put(self, weights: Weights) -> None:
        self.before_update()
        put_back(self._module, weights)

    def restore(self, weights: Weights, state: Weights) -> None:
        self.before_update()
        fragments.put_state(self._module, self._optimizer, state, weights)

    def _forward(self, batch: Fed) -> torch.Tensor:
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._mixed):
            out: torch.Tensor = self._module(**batch.inputs(self._device)).logits
        return out


def learned(module: Any) -> Weights:
    """A copy of the module's state on CPU; without the frozen weights where some are frozen."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return {name: tensor.detach().cpu().clone() for name, tensor in module.state_dict().items() if name not in frozen}


def put_back(module: Any, weights: Weights) -> None:
    """The inverse of `learned`. What is frozen stays. Raises ValueError when names do not fit."""
    missing = learned_names(module) ^ weights.keys()
    if missing:
        raise ValueError(f"weights do not fit the module: {sorted(missing)[:3]}")
    module.load_state_dict(weights, strict=False)


def learned_names(module: Any) -> set[str]:
    """The names `learned` returns."""
    frozen = {name for name, parameter in module.named_parameters() if not parameter.requires_grad}
    return set(module.state_dict()) - frozen


def optimizer_groups(module: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Decay matrices; leave biases and norms alone."""
    return grouped([parameter for parameter in module.parameters() if parameter.requires_grad], weight_decay)


def grouped(parameters: Sequence[torch.nn.Parameter], weight_decay: float) -> list[dict[str, Any]]:
    """The same, of parameters that are no module's own."""
    return [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
