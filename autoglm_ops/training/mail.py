"""What ranks tell each other beside gradients: sums, and bytes to rank 0 where ranks on several machines share no disk."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray

from autoglm_ops.training import nodes


def summed(values: NDArray[np.float64], device: torch.device | str) -> NDArray[np.float64]:
    """The elementwise sum of `values` over all ranks, by way of `device`. All ranks call it."""
    tensor = torch.from_numpy(values.copy()).to(device)
    torch.distributed.all_reduce(tensor)
    return np.asarray(tensor.cpu().numpy())


class Mail:
    """Over a gloo group of its own, beside whatever training uses."""

    def __init__(self, group: Any) -> None:
        self._group = group

    @classmethod
    def between_machines(cls) -> Self | None:
        """None where all ranks share a disk. All ranks call it."""
        return cls(torch.distributed.new_group(backend="gloo")) if nodes.here().nodes > 1 else None

    def collect(self, content: bytes) -> list[bytes]:
        """Every rank's bytes on rank 0, in order; an empty list elsewhere. All ranks call it."""
        rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
        sizes = torch.zeros(ranks, dtype=torch.int64)
        sizes[rank] = len(content)
        torch.distributed.all_reduce(sizes, group=self._group)
        sent = torch.zeros(int(sizes.max()), dtype=torch.uint8)
        sent[: len(content)] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        taken = [torch.empty_like(sent) for _ in range(ranks)] if rank == 0 else None
        torch.distributed.gather(sent, taken, dst=0, group=self._group)
        return [part[:size].numpy().tobytes() for part, size in zip(taken or (), sizes.tolist(), strict=False)]
