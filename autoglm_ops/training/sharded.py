"""A model's weights cut over ranks: every layer over the ranks of a tensor group, whole layers over those of a pipeline.

Both cuts are transformers' own. Tensor parallel: the model's `tp_plan` applied as DTensors (transformers/distributed/tensor_parallel.py),
which knows GLM's fused gate; DeepSpeed's AutoTP refuses GLM's plan for its style `rowwise_split_input` (module_inject/tp_plan_converter.py,
SUPPORTED_STYLES). Pipeline: the layers of other stages become identities and keep their numbers (pipeline_parallel.py), so a weight has
one name on every layout.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Replicate, Shard
from transformers.distributed.configuration_utils import DistributedConfig
from transformers.distributed.pipeline_parallel import PipelineIdentityLayer, apply_pipeline_parallelism
from transformers.distributed.tensor_parallel import apply_tensor_parallelism

from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.errors import Refused
from autoglm_ops.training.progress import Weights

AXES = ("pipeline", "copy", "tensor")
"""Of the mesh, the slowest links first: the ranks of a tensor group are neighbours."""


@dataclass(frozen=True)
class Piece:
    """What this rank holds of one trained parameter. `local` shares the parameter's memory; it is slice `index` of `count` along `dim`,
    or all of it where `count` is 1."""

    name: str
    parameter: Any
    local: torch.nn.Parameter
    dim: int = 0
    index: int = 0
    count: int = 1

    @property
    def place(self) -> str:
        """Where it belongs, in a checkpoint's words (see `fragments`)."""
        return f"@0:{self.name}" if self.count == 1 else f"@{self.index}.{self.count}.{self.dim}:{self.name}"

    def gradient(self) -> torch.Tensor | None:
        """Of `local`, in its layout."""
        found: torch.Tensor | None = self.parameter.grad
        if not isinstance(found, DTensor):
            return found
        local: torch.Tensor = found.redistribute(placements=self.parameter.placements).to_local()
        return local

    def cut(self, whole: torch.Tensor) -> torch.Tensor:
        """This rank's slice of a whole tensor; DTensor's shards are torch.chunk's."""
        return whole if self.count == 1 else whole.chunk(self.count, self.dim)[self.index]


def mesh_of(plan: ParallelPlan) -> DeviceMesh:
    """The ranks in three axes. Every rank calls it."""
    return init_device_mesh(plan.device, (plan.pipeline, plan.copies, plan.tensor), mesh_dim_names=AXES)


def cut(module: Any, mesh: DeviceMesh) -> Any:
    """`module` with only this rank's part left in it. Raises Refused for a model without a plan to be cut by."""
    name = type(module).__name__
    if mesh["pipeline"].size() > 1:
        stages = mesh["pipeline"].size()
        if not getattr(module, "pp_plan", None) or len(module.base_model.layers) < stages:
            raise Refused(f"{name} cannot be cut into {stages} stages: it has no pp_plan, or fewer layers; take another plan")
        apply_pipeline_parallelism(module, mesh["pipeline"])
    if mesh["tensor"].size() > 1:
        if not getattr(module, "tp_plan", None):
            raise Refused(f"{name} has no tp_plan, and the plan cuts its layers; take another plan")
        _untie(module)
        rules, *_ = module._resolve_parallel_plans(DistributedConfig(tp_size=mesh["tensor"].size()))
        elsewhere = {name for name, one in module.named_modules() if isinstance(one, PipelineIdentityLayer)}
        apply_tensor_parallelism(module, mesh["tensor"], {name: rule for name, rule in rules.items() if name not in elsewhere})
        module.tie_weights(recompute_mapping=False)
    return module


def _untie(module: Any) -> None:
    """Give a tied head a parameter of its own until all are cut: a shard is a new one, and a plan's names must each be found."""
    head = module.get_output_embeddings()
    if isinstance(getattr(head, "weight", None), torch.nn.Parameter):
        head.weight = torch.nn.Parameter(head.weight.detach(), requires_grad=head.weight.requires_grad)


def pieces(module: Any) -> list[Piece]:
    """What this rank trains, each parameter once."""
    return [_piece(name, parameter) for name, parameter in module.named_parameters() if parameter.requires_grad]


def _piece(name: str, parameter: Any) -> Piece:
    if not isinstance(parameter, DTensor):
        return Piece(name, parameter, parameter)
    local = torch.nn.Parameter(parameter.to_local().detach())
    (placement,) = parameter.placements
    if isinstance(placement, Replicate):
        return Piece(name, parameter, local)
    assert isinstance(placement, Shard), f"{name} lies in {placement}, which no checkpoint could say"
    mesh = parameter.device_mesh
    return Piece(name, parameter, local, placement.dim % parameter.dim(), mesh.get_local_rank(), mesh.size())


def whole(module: Any, mesh: DeviceMesh) -> Weights:
    """The module's state as it was before the cut, on CPU and on every rank, which all call it."""
    mine = {name: _full(tensor) for name, tensor in module.state_dict().items()}
    group = mesh["pipeline"].get_group()
    told: list[Any] = [None] * mesh["pipeline"].size()
    torch.distributed.all_gather_object(told, {name: (tuple(one.shape), one.dtype) for name, one in mine.items()}, group=group)
    found: Weights = {}
    for stage, names in enumerate(told):
        for name, (shape, dtype) in names.items():
            if name in found:
                continue
            tensor = mine[name] if stage == mesh["pipeline"].get_local_rank() else torch.empty(shape, dtype=dtype)
            tensor = tensor.to(mesh.device_type)
            torch.distributed.broadcast(tensor, group=group, group_src=stage)
            found[name] = tensor.float().cpu()
    return found


def _full(tensor: torch.Tensor) -> torch.Tensor:
    full = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
    return full.detach().clone().contiguous()
