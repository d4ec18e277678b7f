"""A gradient explosion undone where it happened: the abnormal layer goes back to its last good weights (spec T5)."""

from __future__ import annotations

import logging
import math
import re
import statistics

import numpy as np
import torch

from autoglm_ops.errors import UsageError
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.loop import Engine
from autoglm_ops.training.progress import Progress, Weights

log = logging.getLogger(__name__)

NOTE = "explosion-reset"
"""In a run's notes: step and how many tensors were reset, one pair after the other."""
_LAYER = re.compile(r"^(.*?\.(?:layers|h|layer|block)\.\d+)\.")


class ExplosionReset(Callback):
    """Every `keep` steps the weights and the optimizer's state are kept, and are good once the next step was quiet; a loss or a gradient norm of more than `factor` times its
    median over the last `window` steps puts the layer back whose weights lie furthest from them, relative to their size.

    Its moments go back too: one that holds the explosion would repeat it. Every rank decides alike, since the loss is averaged over
    them and norms are global.
    """

    def __init__(self, engine: Engine, factor: float = 5.0, window: int = 20, keep: int = 5) -> None:
        if factor <= 1 or window < 3 or keep < 1:
            raise UsageError(
                f"factor must be above 1, window at least 3 and keep at least 1, but got {factor}, {window}, {keep}"
            )
        if not engine.resumable:
            raise UsageError(
                "explosion-reset needs an engine whose state can be put back, and fp16 or bf16 on DeepSpeed's fused kernel cannot; set training.zero_stage = 1"
            )
        self._engine, self._factor, self._window, self._every = engine, factor, window, keep
        self._seen: list[tuple[float, float]] = []
        self._good: tuple[Weights, Weights] | None = None
        self._unproven: tuple[Weights, Weights] | None = None

    def on_start(self, progress: Progress) -> None:
        self._good = (self._engine.weights(), self._engine.state())

    def on_step(self, progress: Progress) -> None:
        now = (self._mean(progress.loss), progress.norm)
        if len(self._seen) >= 3 and self._exploded(now):
            self._reset(progress)
            self._unproven = None
            return
        self._good, self._unproven = self._unproven or self._good, None  # a loss is of the weights before its step
        self._seen = [*self._seen[-self._window + 1 :], now]
        if progress.step % self._every == 0:
            self._unproven = (self._engine.weights(), self._engine.state())

    def _mean(self, loss: float) -> float:
        return float(self._engine.add(np.array([loss]))[0]) / self._engine.ranks

    def _exploded(self, now: tuple[float, float]) -> bool:
        usual = [statistics.median(values) for values in zip(*self._seen, strict=True)]
        return any(
            not math.isfinite(value) or (was > 0 and value > self._factor * was) for value, was in zip(now, usual, strict=True)
        )

    def _reset(self, progress: Progress) -> None:
        assert self._good is not None
        layer = abnormal(self._good[0], self._engine.weights())
        names = [name for name in self._good[0] if layer_of(name) == layer]
        self._engine.restore({}, mended(self._engine.state(), self._good[1], layer))
        progress.notes.setdefault(NOTE, []).extend((float(progress.step), float(len(names))))
        log.warning(
            "step %d: an explosion; %s goes back to its last good weights (%d tensors)", progress.step, layer, len(names)
        )


def layer_of(name: str) -> str:
    """`model.layers.3` of `model.layers.3.mlp.weight`; what is in no layer is its own module: `model.embed_tokens`."""
    found = _LAYER.match(name)
    return found.group(1) if found else name.rpartition(".")[0]


def abnormal(good: Weights, now: Weights) -> str:
    """The layer that moved furthest, relative to its size; one with a value that is no number before all others."""
    moved: dict[str, list[float]] = {}
    for name, tensor in now.items():
        before = good[name].float()
        far, size = (tensor.float() - before).pow(2).sum(), before.pow(2).sum()
        pair = moved.setdefault(layer_of(name), [0.0, 0.0])
        pair[0], pair[1] = pair[0] + float(far), pair[1] + float(size)

    def distance(layer: str) -> float:
        far, size = moved[layer]
        return math.inf if not math.isfinite(far) else far / max(size, 1e-12)

    return max(moved, key=distance)


def mended(state: Weights, good: Weights, layer: str) -> Weights:
    """`state` (see `Engine.live`: names end in `:<parameter>`) with all that belongs to `layer` as it was; zero where there was none yet."""
    return {
        key: good.get(key, torch.zeros_like(tensor)) if layer_of(key.partition(":")[2]) == layer else tensor
        for key, tensor in state.items()
    }
