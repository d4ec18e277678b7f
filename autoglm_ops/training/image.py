"""One rank's part of a checkpoint: copied out of training's way into host memory of its own, and written as safetensors.

The host memory is kept and used again, since fresh pages cost more than the copy.
"""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

import torch

from autoglm_ops.contracts.record import sync
from autoglm_ops.training.progress import Weights
from autoglm_ops.training.tensors import Stored, finite, header

_NAMES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64",
    torch.int32: "I32", torch.int16: "I16", torch.int8: "I8", torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


class Host:
    """Host memory for images of one shape after another; the last image is overwritten by the next."""

    def __init__(self) -> None:
        self._kept: Weights = {}

    def copy(self, live: Weights) -> Weights:
        """A copy of `live` on the host; waits for a device's copies to arrive."""
        kept: Weights = {}
        for name, tensor in live.items():
            host = self._kept.get(name)
            if host is None or host.shape != tensor.shape or host.dtype != tensor.dtype:
                host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=tensor.is_cuda)
            kept[name] = host.copy_(tensor, non_blocking=tensor.is_cuda)
        if any(tensor.is_cuda for tensor in live.values()):
            torch.cuda.synchronize()
        self._kept = kept
        return kept


def write(path: Path, tensors: Weights) -> str:
    """Write `tensors` to `path`, synced and read back; returns the file's sha256.

    Raises OSError when it cannot be kept, or when what is read is not what was written; ValueError on NaN or infinities, which nothing
    should be continued from.
    """
    stored = {name: _stored(tensor) for name, tensor in tensors.items()}
    for name, one in stored.items():
        if not finite(one.raw, one.dtype):
            raise ValueError(f"{name} holds NaN or infinite values")
    digest = hashlib.sha256()
    with path.open("wb", buffering=0) as file:
        chunks = [memoryview(header(stored)), *(one.raw.data for one in stored.values() if one.raw.size)]
        for chunk in chunks:
            digest.update(chunk)
            put(file.fileno(), chunk)
        os.fsync(file.fileno())
    if _digest(path) != digest.hexdigest():
        raise OSError(errno.EIO, f"{path.name} was not written whole")
    return digest.hexdigest()


def write_bytes(path: Path, content: bytes) -> str:
    """The same for a small file of any content."""
    with path.open("wb", buffering=0) as file:
        put(file.fileno(), memoryview(content))
    sync(path)
    if _digest(path) != hashlib.sha256(content).hexdigest():
        raise OSError(errno.EIO, f"{path.name} was not written whole")
    return hashlib.sha256(content).hexdigest()


def put(handle: int, content: memoryview) -> None:
    """Write all of it. A disk that says it took less is asked again for the rest; what it lied about is found when it is read back."""
    while content.nbytes:
        content = content[os.write(handle, content) :]


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stored(tensor: torch.Tensor) -> Stored:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return Stored(_NAMES[tensor.dtype], tuple(tensor.shape), flat)
