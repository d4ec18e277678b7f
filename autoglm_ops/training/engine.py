"""The engine of one DeepSpeed rank: gloo on CPU, nccl on GPUs. The only importer of deepspeed."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import deepspeed
import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.training import fragments, nodes
from autoglm_ops.training.batch import Fed
from autoglm_ops.training.loop import Diverged
from autoglm_ops.training.mail import Mail, summed
from autoglm_ops.training.objective import Classification, Objective, mean_items
from autoglm_ops.training.plain import learned_names, optimizer_groups, put_back
from autoglm_ops.training.progress import Weights
from autoglm_ops.training.recipe import Recipe

PATIENCE = timedelta(minutes=10)
"""How long a collective waits for a rank that is alive but silent. A dead one is noticed at once."""


def deterministic(device: str) -> None:
    """Let torch take deterministic algorithms; on a GPU, where a few have none, warn. Not by use_deterministic_algorithms, which imports
    torch's compiler to tell it so: three seconds of CPU, for what is never compiled."""
    torch.set_deterministic_debug_mode("warn" if device == "cuda" else "error")


def warm(config: dict[str, Any]) -> None:
    """Import what `deepspeed.initialize` will import for `config`. ZeRO asks for Muon, which is no optimizer here, and whose decorators
    alone would import torch's compiler (zero/muon/original_muon.py): they are given nothing to do."""
    if int(config["zero_optimization"]["stage"]) == 0 or "deepspeed.runtime.zero.muon.muon_optimizer" in sys.modules:
        return
    compiler = torch.compile
    torch.compile = lambda function=None, **_: function or (lambda same: same)  # type: ignore[assignment]
    try:
        import_module("deepspeed.runtime.zero.muon.muon_optimizer")
        import_module("deepspeed.runtime.zero.stage3")
    finally:
        torch.compile = compiler


def join(rank: int, ranks: int, device: str, meeting: Path) -> None:
    """Join the process group. `meeting` is a file on the disk of this machine, and nothing listens beyond the loopback, unless there
    are several machines: then rank 0 listens at the address that `nodes` knows.

    DeepSpeed's shared-memory all-reduce serves tensor-parallel inference alone and would be compiled here for a minute
    (deepspeed/comm/torch.py, build_shm_op). On CPU no op is declared compatible, which also spares the probing of the compiler;
    gloo does the work in any case.
    """
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    # DeepSpeed calls collectives by names that torch has deprecated: at ZeRO 2 and 3 several lines a step in the run's log
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"torch\.distributed\.")
    place = nodes.here()
    local = rank - place.ranks(ranks).start
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(local), WORLD_SIZE=str(ranks))
    if place.nodes == 1:
        os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="0")
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if device == "cpu":
        deepspeed.ops.__compatible_ops__ = {}
    if device == "cuda":
        torch.cuda.set_device(local)
    deepspeed.init_distributed(
        dist_backend="nccl" if device == "cuda" else "gloo",
        init_method=place.address(meeting),
        rank=rank,
        world_size=ranks,
        timeout=PATIENCE,
        auto_mpi_discovery=False,
        verbose=False,
    )


class DeepSpeedEngine:
    """One rank. `join` comes first. `pulse` is called with every forward pass: a sign of life."""

    def __init__(
        self,
        module: Any,
        recipe: Recipe,
        config: dict[str, Any],
        objective: Objective | None = None,
        pulse: Callable[[], None] = lambda: None,
    ) -> None:
        self._pulse = pulse
        self.before_update: Callable[[], None] = lambda: None
        self._objective = objective or Classification(recipe.label_smoothing)
        self.norm = 0.0
        self._zero = int(config["zero_optimization"]["stage"])
        groups = optimizer_groups(module, recipe.weight_decay)
        self._engine, self._optimizer, *_ = deepspeed.initialize(model=module, model_parameters=groups, config=config)
        self.rank = self.reader = torch.distributed.get_rank()
        self.ranks = self.readers = torch.distributed.get_world_size()
        self.accumulation = int(config["gradient_accumulation_steps"])
        self._mail = Mail.between_machines()

    def step(self, batches: Sequence[Fed], rate: float) -> float:
        self._engine.train()
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        items = mean_items(self._objective, batches, self.ranks, self.add)
        total = 0.0
        for place, batch in enumerate(batches, 1):
            loss = self._objective.loss(self._forward(batch), batch, items)
            self._engine.backward(loss)
            own = self._own_norm()
            if place == len(batches):
                self.before_update()
            self._engine.step()
            total += float(loss.detach()) / len(batches)
        self._taken(total, rate)
        self.norm = own or float(self._engine.get_global_grad_norm() or 0.0)
        return total

    def _taken(self, loss: float, rate: float) -> None:
        """Raise Diverged where DeepSpeed left the update out, which it does without a word to the caller when a gradient is not finite.
        fp16 does so by design, to find its loss scale; elsewhere every later step would be left out too, and the model be a wrong one
        whose loss looks well (a learning rate of 1e9 at ZeRO 1)."""
        if self._engine.skipped_steps and not self._engine.fp16_enabled():
            raise Diverged(
                f"diverged: the gradients are not finite (the loss is {loss:.4g}) with learning rate {rate:.3g}; lower it, or train.gradient_clip"
            )

    def _own_norm(self) -> float:
        """The gradient's norm where DeepSpeed clips without saying it: torch's own optimizer at stage 0. 0 elsewhere, and between steps."""
        if not self.resumable or not self._engine.is_gradient_accumulation_boundary():
            return 0.0
        found = [p.grad for p in self._engine.module.parameters() if p.grad is not None]
        return float(torch.nn.utils.get_total_norm(found)) if found else 0.0

    def logits(self, batch: Fed) -> torch.Tensor:
        self._engine.eval()
        with torch.no_grad():
            return self._forward(batch).float().cpu()

    def add(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        return summed(values, self._engine.device)

    @property
    def collect(self) -> Callable[[bytes], list[bytes]] | None:
        """Brings every rank's bytes to rank 0, in order (an empty list elsewhere); None where all ranks share a disk. All ranks call it."""
        return None if self._mail is None else self._mail.collect

    def weights(self) -> Weights:
        with deepspeed.zero.GatheredParameters(list(self._engine.module.parameters()), enabled=self._zero == 3):
            names = learned_names(self._engine.module)
            state = self._engine.module.state_dict()
            return {name: tensor.detach().float().cpu().clone() for name, tensor in state.items() if name in names}

    @property
    def resumable(self) -> bool:
        """Whether `state` and `restore` work: not where DeepSpeed's fused kernel keeps 16-bit runs at ZeRO 0 (fp16/fused_optimizer.py)."""
        return not hasattr(self._optimizer, "fp32_groups_flat")

    @property
    def twin(self) -> int:
        """The rank that writes what this one holds as well: rank 0 where all hold everything."""
        return 0 if self._zero == 0 else self.rank

    @property
    def layout(self) -> str:
        """How state lies on the ranks."""
        return f"ZeRO {self._zero}, {next(self._engine.module.parameters()).dtype}".replace("torch.", "")

    @property
    def dtype(self) -> torch.dtype:
        """Of the trained weights."""
        found: torch.dtype = next(one.dtype for one in self._engine.module.parameters() if one.requires_grad)
        return found

    def live(self) -> Weights:
        state = fragments.live(self._engine.module, self._optimizer)
        whole = self._zero == 0 and self.rank > 0  # rank 0 has the same
        return {} if whole else state

    def state(self) -> Weights:
        return {name: tensor.clone() for name, tensor in fragments.live(self._engine.module, self._optimizer).items()}

    def put(self, weights: Weights) -> None:
        self.before_update()
        parameters = list(self._engine.module.parameters())
        with deepspeed.zero.GatheredParameters(parameters, modifier_rank=0, enabled=self._zero == 3):
            put_back(self._engine.module, weights)

    def restore(self, weights: Weights, state: Weights) -> None:
        self.before_update()
        fragments.put_state(self._engine.module, self._optimizer, state, weights)

    def _forward(self, batch: Fed) -> torch.Tensor:
        self._pulse()
        out: torch.Tensor = self._engine(**batch.inputs(self._engine.device)).logits
        return out


def leave() -> None:
    """Leave the process group in order."""
    torch.distributed.destroy_process_group()
