"""One rank's part of a checkpoint: copied out of training's way into host memory of its own, and written as safetensors.

The host memory is kept and used again, since fresh pages cost more than the copy.
"""

from __future__ import annotations

import errno
import hashlib
import os
import threading
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
        return self.begin(live).whole()

    def begin(self, live: Weights) -> Copying:
        """A copy yet to be made, by whoever has time for it."""
        before, self._kept = self._kept, {}
        return Copying(live, before, self._kept)


class Copying:
    """A copy of tensors that several threads may work on, tensor by tensor: each takes the next one that nobody has taken.

    The thread whose work it is may not run when it is needed (its core is another's), and then whoever waits does the rest itself: what
    it waits for is at most the copy of one tensor.
    """

    def __init__(self, live: Weights, before: Weights, kept: Weights) -> None:
        self._before, self._kept, self._names = before, kept, list(live)
        self._todo = iter([*live.items()])  # next() of a list's iterator is one step, whichever threads call it
        self._left, self._lock, self._done = len(live), threading.Lock(), threading.Event()
        self._device = any(tensor.is_cuda for tensor in live.values())
        self._error: Exception | None = None

    def help(self) -> None:
        """Copy what nobody has taken yet. What goes wrong is raised by `whole`."""
        for name, tensor in self._todo:
            try:
                self._kept[name] = _copied(tensor, self._before.get(name))
            except (RuntimeError, MemoryError) as error:
                self._error = error
            with self._lock:
                self._left -= 1
        if self._left == 0 and not self._device:
            self._done.set()

    def wait(self) -> None:
        """Until it is made, helping. A device's copies are one queue: there is nothing to help with."""
        if not self._device:
            self.help()
        self._done.wait()

    def whole(self) -> Weights:
        """The copy. Raises what copying raised: RuntimeError or MemoryError."""
        self.help()
        if self._device:
            try:
                torch.cuda.synchronize()
            finally:
                self._done.set()
        self._done.wait()
        if self._error is not None:
            raise self._error
        return {name: self._kept[name] for name in self._names}


def _copied(tensor: torch.Tensor, host: torch.Tensor | None) -> torch.Tensor:
    if host is None or host.shape != tensor.shape or host.dtype != tensor.dtype:
        host = torch.empty(tensor.shape, dtype=tensor.dtype, device="cpu", pin_memory=tensor.is_cuda)
    return host.copy_(tensor, non_blocking=tensor.is_cuda)


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
