"""One stage of a pipeline: its part of a causal LM, and the schedule of its micro-batches.

The schedule is torch's (torch.distributed.pipelining, 1F1B: Narayanan et al. 2019, PipeDream): a stage keeps the activations of as many
micro-batches as there are stages after it, not of all. transformers' own pipeline only generates; DeepSpeed's PipelineModule wants the
model written anew as a list of layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.pipelining import PipelineStage, Schedule1F1B, ScheduleGPipe

from autoglm_ops.errors import Refused
from autoglm_ops.training.batch import Fed

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


class Part(torch.nn.Module):
    """A cut module as a stage: token ids or the previous stage's hidden states in, hidden states or logits out."""

    def __init__(self, module: Any, first: bool, last: bool, wide: torch.dtype, run: Callable[[], Any]) -> None:
        super().__init__()
        self.module, self._first, self._last, self._wide, self._run = module, first, last, wide, run

    def forward(self, entering: torch.Tensor, **given: Any) -> torch.Tensor:
        name = "input_ids" if self._first else "inputs_embeds"
        with self._run():
            out: torch.Tensor = self.module.base_model(**{name: entering}, **given).last_hidden_state
            if self._last:
                out = self.module.get_output_embeddings()(out)
        return out if self._last else out.to(self._wide)


class Pipeline:
    """This rank's stage. Every stage is given the same batches; the first reads their ids, the last their labels."""

    def __init__(self, module: Any, mesh: DeviceMesh, device: torch.device, wide: torch.dtype, run: Callable[[], Any]) -> None:
        axis = mesh["pipeline"]
        self.index, self.count, self._group = axis.get_local_rank(), axis.size(), axis.get_group()
        self.first, self.last = self.index == 0, self.index == self.count - 1
        self._part = Part(module, self.first, self.last, wide, run)
        self._config, self._device, self._wide = module.config, device, wide
        self._kept: dict[tuple[int, ...], Any] = {}
        self._loss: Loss | None = None

    def train(self, batches: Sequence[Fed], loss: Loss) -> float:
        """Forward and backward of one step's micro-batches, gradients summed. Returns the sum of `loss`, the same on every stage.

        Raises Refused when they differ in shape, as padded rows do: stages agree on shapes beforehand.
        """
        given = [batch.inputs(self._device) for batch in batches]
        if len({_shapes(one) for one in given}) > 1:
            raise Refused(
                "a pipeline needs micro-batches of one shape, and this model's rows are padded since it cannot keep packed ones apart; "
                "set training.pipeline = 1"
            )
        joined = {name: torch.cat([one[name] for one in given]) for name in given[0]}
        labels = torch.cat([batch.labels for batch in batches]).to(self._device)
        losses: list[torch.Tensor] = []
        self._loss = loss
        self._run(
            self._schedule(given[0], len(batches)),
            joined,
            target=labels if self.last else None,
            losses=losses,
            return_outputs=False,
        )
        total = (
            torch.stack([one.detach() for one in losses]).sum().float() if self.last else torch.zeros((), device=self._device)
        )
        torch.distributed.broadcast(total, group=self._group, group_src=self.count - 1)
        return float(total)

    def logits(self, batch: Fed) -> torch.Tensor:
        """Of one micro-batch, in fp32 on CPU, on every stage."""
        given = batch.inputs(self._device)
        found = self._run(self._schedule(given, 0), given)
        shape = (*given["input_ids"].shape, self._config.vocab_size)
        told = found.float() if self.last else torch.empty(shape, device=self._device)
        torch.distributed.broadcast(told, group=self._group, group_src=self.count - 1)
        return told.cpu()

    def _run(self, schedule: Any, given: dict[str, torch.Tensor], **more: Any) -> Any:
        rest = {name: tensor for name, tensor in given.items() if name != "input_ids"}
        return schedule.step(*([given["input_ids"]] if self.first else []), **rest, **more)

    def _schedule(self, given: dict[str, torch.Tensor], count: int) -> Any:
        """For `count` micro-batches like `given`; 0 is one, forward alone. Its stage knows shapes beforehand, so none are sent."""
        rows, width = given["input_ids"].shape
        key = (count, rows, width)
        if key not in self._kept:
            hidden, logits = (
                torch.empty(rows, width, last, dtype=self._wide, device="meta", requires_grad=count > 0)
                for last in (self._config.hidden_size, self._config.vocab_size)
            )
            entering = given["input_ids"].to("meta") if self.first else hidden
            stage = PipelineStage(
                self._part, self.index, self.count, self._device, entering, logits if self.last else hidden, group=self._group
            )
            if count == 0:
                self._kept[key] = ScheduleGPipe(stage, 1)
            else:
                self._kept[key] = Schedule1F1B(stage, count, loss_fn=self._measure, scale_grads=False)
        return self._kept[key]

    def _measure(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        assert self._loss is not None
        return self._loss(logits, labels)


def _shapes(given: dict[str, torch.Tensor]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    return tuple((name, tuple(tensor.shape)) for name, tensor in sorted(given.items()))
