"""When a checkpoint is due: after so many steps, or about so many seconds, which all ranks reckon alike."""

from __future__ import annotations

import time
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from autoglm_ops.training.loop import Engine

BUSY = 5.0
"""Writing takes no more than one part in so many of the time: a checkpoint that takes 60 s to write is due every 5 minutes."""


@dataclass
class Pace:
    """every: steps between checkpoints beside those of evaluations, at the steps `marks`. seconds: time between checkpoints, where the
    steps are longer than that. None for none of either.

    A kill costs half an interval on the average and a checkpoint next to nothing, so seconds are what bounds the loss (Young 1974; Daly
    2006: the best interval grows with the root of a checkpoint's cost). Clocks of ranks differ, and all must save at the same step: they
    add up what they measured at a step that all know beforehand, once per checkpoint, and settle the next such step.
    """

    every: int | None = None
    marks: Collection[int] = ()
    seconds: float | None = None
    _first: int = 0
    _ask: int = 0
    _begun: float = field(default_factory=time.monotonic)
    _last: float = field(default_factory=time.monotonic)

    def begin(self, step: int) -> None:
        """Steps start after `step`."""
        self._first, self._ask = step, step + 1
        self._begun = self._last = time.monotonic()

    def saved(self) -> None:
        self._last = time.monotonic()

    def due(self, engine: Engine, step: int, writing: float) -> bool:
        """Whether to save after `step`; every rank asks at every step. `writing`: seconds that this rank's last checkpoint took."""
        if step in self.marks:
            return False
        if self.every and step % self.every == 0:
            return True
        return self.seconds is not None and step >= self._ask and self._in_time(engine, step, self.seconds, writing)

    def _in_time(self, engine: Engine, step: int, seconds: float, writing: float) -> bool:
        now = time.monotonic()
        mine = np.array([(now - self._begun) / max(1, step - self._first), now - self._last, writing])
        pace, age, written = (float(value) / engine.ranks for value in engine.add(mine))
        wanted = max(seconds, BUSY * written)
        due = age >= wanted - pace / 2
        self._ask = step + max(1, round((wanted if due else wanted - age) / max(pace, 1e-6)))
        return due
