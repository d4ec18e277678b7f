"""The engine of a rank that computes a part of the model: tensor and pipeline parallel, and data parallel over copies of the model.

DeepSpeed is not under it: its AutoTP refuses GLM's plan (see `sharded`), and its pipeline another module (see `pipeline`). Optimizer,
clipping and the sums between ranks are here, each a few lines; what a rank holds of a weight, its moments follow.

Gradients of a weight that is cut are whole on the rank that has it, those of one that every rank of a tensor group holds are the same on
all (DTensor reduces them on the way back), and those of a table that both ends of a pipeline hold are added. 16 bits is bf16 arithmetic
over fp32 weights (torch.autocast).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.training import fragments, sharded
from autoglm_ops.training.batch import DictBatch, Fed
from autoglm_ops.training.mail import Mail, summed
from autoglm_ops.training.objective import Objective, mean_items
from autoglm_ops.training.pipeline import Pipeline
from autoglm_ops.training.plain import grouped
from autoglm_ops.training.progress import Weights
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.sharded import Piece

KINDS = {"AdamW": torch.optim.AdamW, "Adam": torch.optim.Adam, "SGD": torch.optim.SGD}


class MeshEngine:
    """One rank. `engine.join` comes first. `section` is DeepSpeed's `optimizer` section, which a job says its optimizer in."""

    resumable = True

    def __init__(
        self,
        module: Any,
        recipe: Recipe,
        plan: ParallelPlan,
        section: dict[str, Any],
        objective: Objective,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        self._pulse, self._recipe, self._plan, self._objective = pulse, recipe, plan, objective
        self.before_update: Callable[[], None] = lambda: None
        self.norm = 0.0
        self.accumulation = plan.accumulation
        self.rank, self.ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        self._mesh = sharded.mesh_of(plan)
        self.reader, self.readers = self._mesh["copy"].get_local_rank(), plan.copies
        self._device = torch.device("cuda", torch.cuda.current_device()) if plan.device == "cuda" else torch.device("cpu")
        self._tied = _tied(module) if plan.pipeline > 1 else set()
        self._module = sharded.cut(module, self._mesh).to(self._device)
        self._pieces = sharded.pieces(self._module)
        self._optimizer = _optimizer(self._pieces, recipe, section)
        self._pipeline = self._piped() if plan.pipeline > 1 else None
        self._ends = self._join_ends()
        self._mail = Mail.between_machines()

    def step(self, batches: Sequence[Fed], rate: float) -> float:
        self._module.train()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        items = mean_items(self._objective, batches, self.ranks, self.add)
        total = self._passes(batches, items)
        self._sum_gradients()
        self.norm = self._clip()
        self.before_update()
        self._optimizer.step()
        for piece in self._pieces:
            piece.parameter.grad = piece.local.grad = None
        return total

    def logits(self, batch: Fed) -> torch.Tensor:
        self._module.eval()
        with torch.no_grad():
            if self._pipeline is not None:
                return self._pipeline.logits(batch)
            return self._forward(batch).float().cpu()

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return summed(values, self._device)

    @property
    def collect(self) -> Callable[[bytes], list[bytes]] | None:
        return None if self._mail is None else self._mail.collect

    def weights(self) -> Weights:
        return sharded.whole(self._module, self._mesh)

    @property
    def layout(self) -> str:
        """How state lies on the ranks."""
        return f"tensor {self._plan.tensor}, pipeline {self._plan.pipeline}, {self._plan.precision}"

    @property
    def dtype(self) -> torch.dtype:
        """What the weights are computed with."""
        return torch.bfloat16 if self._plan.precision == "bf16" else torch.float32

    @property
    def twin(self) -> int:
        """The rank of the first copy that holds the same part, and writes it."""
        return int(self._mesh.mesh[self._mesh.get_local_rank("pipeline"), 0, self._mesh.get_local_rank("tensor")])

    def live(self) -> Weights:
        return self._held() if self.reader == 0 else {}  # the first copy of the model has the same

    def state(self) -> Weights:
        return {name: tensor.clone() for name, tensor in self._held().items()}

    def put(self, weights: Weights) -> None:
        self.before_update()
        with torch.no_grad():
            for piece in self._pieces:
                piece.local.copy_(piece.cut(weights[piece.name]))
            for name, buffer in fragments.buffers(self._module):
                buffer.copy_(weights[name])

    def restore(self, weights: Weights, state: Weights) -> None:
        self.before_update()
        parts = fragments.parts_of(state)
        moments = fragments.moments_of(state)
        with torch.no_grad():
            for piece in self._pieces:
                held = _Held(piece, state, parts)
                whole = weights.get(piece.name)
                piece.local.copy_(held.take("master") if whole is None else piece.cut(whole))
                self._optimizer.state.pop(piece.local, None)
                for kind in moments.get(piece.name, ()):
                    self._optimizer.state[piece.local][kind] = held.take(kind)
            for name, buffer in fragments.buffers(self._module):
                buffer.copy_(parts["buffer", name][0][1])

    def _held(self) -> Weights:
        found: Weights = {f"buffer@0:{name}": buffer.detach() for name, buffer in fragments.buffers(self._module)}
        for piece in self._pieces:
            found[f"master{piece.place}"] = piece.local.detach()
            for kind, value in self._optimizer.state.get(piece.local, {}).items():
                if kind == "step":
                    found[f"step@0:{piece.name}"] = torch.as_tensor(value, dtype=torch.float32).reshape(())
                elif value is not None:
                    found[kind + piece.place] = value.detach()
        return found

    def _passes(self, batches: Sequence[Fed], items: float) -> float:
        """Forward and backward of a step; returns the mean loss."""
        count = len(batches)
        if self._pipeline is not None:
            return self._pipeline.train(
                batches, lambda logits, labels: self._objective.loss(logits, DictBatch({}, labels), items) / count
            )
        total = 0.0
        for batch in batches:
            loss = self._objective.loss(self._forward(batch), batch, items) / count
            torch.autograd.backward(loss)
            total += float(loss.detach())
        return total

    def _forward(self, batch: Fed) -> torch.Tensor:
        with self._run():
            out: torch.Tensor = self._module(**batch.inputs(self._device)).logits
        return out

    def _run(self) -> AbstractContextManager[Any]:
        """Around every forward pass: a sign of life, and the arithmetic's precision."""
        self._pulse()
        return torch.autocast(self._plan.device, torch.bfloat16, enabled=self._plan.precision == "bf16")

    def _piped(self) -> Pipeline:
        return Pipeline(self._module, self._mesh, self._device, self.dtype, self._run)

    def _sum_gradients(self) -> None:
        """Over what holds the same weight: both ends of a pipeline add theirs, copies of the model average."""
        copies = self._mesh["copy"].get_group()
        for piece in self._pieces:
            gradient = piece.gradient()
            if gradient is None:
                continue
            if piece.name in self._tied:
                torch.distributed.all_reduce(gradient, group=self._ends)
            if self.readers > 1:
                torch.distributed.all_reduce(gradient, group=copies)
                gradient /= self.readers
            piece.local.grad = gradient

    def _clip(self) -> float:
        """Scale the gradients to a norm of at most the recipe's; returns the whole model's norm before."""
        mine = [piece.local.grad for piece in self._pieces if piece.local.grad is not None]
        counted = [piece.local.grad for piece in self._pieces if piece.local.grad is not None and self._counts(piece)]
        square = torch.stack([torch.zeros((), device=self._device), *(one.norm() ** 2 for one in counted)]).double().sum()
        for axis in ("tensor", "pipeline"):
            torch.distributed.all_reduce(square, group=self._mesh[axis].get_group())
        norm = math.sqrt(float(square))
        scale = min(1.0, self._recipe.gradient_clip / (norm + 1e-6))
        if scale < 1.0:
            torch._foreach_mul_(mine, scale)
        return norm

    def _counts(self, piece: Piece) -> bool:
        """Whether this rank is the one that counts what several hold."""
        tensor, stage = self._mesh["tensor"].get_local_rank(), self._mesh["pipeline"].get_local_rank()
        return (piece.count > 1 or tensor == 0) and (piece.name not in self._tied or stage == 0)

    def _join_ends(self) -> Any:
        """The group of this rank's first and last stage, where both hold the table of tied embeddings. Every rank makes every group."""
        if not self._tied:
            return None
        found = None
        for lines in self._mesh.mesh.permute(1, 2, 0).reshape(-1, self._plan.pipeline).tolist():
            group = torch.distributed.new_group([lines[0], lines[-1]])
            found = group if self.rank in (lines[0], lines[-1]) else found
        return found


def _tied(module: Any) -> set[str]:
    """The name of the table that is also the output layer, if it is one."""
    table, head = module.get_input_embeddings().weight, module.get_output_embeddings().weight
    return {name for name, parameter in module.named_parameters() if table is head and parameter is table}


class _Held:
    """What `state` holds of one piece: this very slice, or what it can be cut from."""

    def __init__(self, piece: Piece, state: Weights, parts: fragments.Parts) -> None:
        self._piece, self._state, self._parts = piece, state, parts

    def take(self, kind: str) -> torch.Tensor:
        """A copy on the piece's device. Raises ValueError when the state does not hold it."""
        piece = self._piece
        if kind == "step":
            return self._parts[kind, piece.name][0][1].clone()
        mine = self._state.get(kind + piece.place)
        if mine is None or mine.numel() != piece.local.numel():  # ZeRO's first part of it bears the same name
            slot = fragments.Slot(piece.name, 0, piece.parameter.numel(), piece.local, 0)
            mine = piece.cut(fragments.assembled(self._parts, kind, slot).reshape(piece.parameter.shape))
        return mine.to(piece.local.device, copy=True).reshape(piece.local.shape).contiguous()


def _optimizer(pieces: list[Piece], recipe: Recipe, section: dict[str, Any]) -> torch.optim.Optimizer:
    """torch's own, fused, over what this rank holds."""
    options = {name: value for name, value in section["params"].items() if name in ("betas", "eps", "momentum")}
    groups = grouped([piece.local for piece in pieces], recipe.weight_decay)
    made: torch.optim.Optimizer = KINDS[section["type"]](groups, lr=0.0, fused=True, **options)
    return made
