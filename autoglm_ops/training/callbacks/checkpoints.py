"""A checkpoint after each evaluation but the last, and whenever `Pace` says that one is due, written while training goes on.

All of it is a thread's work: copying state into host memory, writing, syncing, publishing. Between two updates the state stands still,
so the copy is made while the next forward and backward pass run, and training waits before its next update for what is left of it.

What training pays, measured for 60 MB in 180 tensors on two cores: 0.4 ms of its own time to hand the state over and 0.1 ms before the
update; the thread 10 ms to copy, then 120 ms to look for NaN (7), write (21), and hash, once as written and once as read back (85), which
all let go of Python's lock; torch.save 40 ms of training's own time. What was more than that was waiting for a thread to be run: starting
one waits until it runs (5 to 70 ms on a busy machine), so there is one thread for all checkpoints, which is sent what to do; and where it
has not come to copy all, training copies the rest itself (`image.Copying`).

One checkpoint at a time: the next one that comes due while it still writes is left out. One that cannot be kept (a full disk, a folder that became read-only) does not end the run:
it is said and counted, the one before it is there still, and the next one tries again (threats F15).

Ranks on several machines share no disk: then rank 0 is sent every part, which training waits for, and writes them all.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, NamedTuple

from safetensors.torch import load, save

from autoglm_ops.training import publication
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.callbacks.pace import Pace
from autoglm_ops.training.image import Copying, Host
from autoglm_ops.training.loop import Engine
from autoglm_ops.training.progress import Progress, Weights
from autoglm_ops.training.publication import Image, Site

log = logging.getLogger(__name__)


class Order(NamedTuple):
    """A checkpoint to be written. `others` are the parts of ranks on other machines."""

    step: int
    copying: Copying
    others: list[Weights]
    best: Weights
    plain: dict[str, Any]


class Checkpoints(Callback):
    """Keeps the newest in `root`, under the `key` that says which run this is. With several ranks `site` says which part is this one's.

    pace: when one is due beside those of evaluations. `stall` is what training
    has waited for, in seconds, `taken` for how many; `failed` and `left_out` are checkpoints that were not kept, and why. collect brings
    the parts of other machines to rank 0 (`DeepSpeedEngine.collect`).
    """

    def __init__(
        self,
        root: Path,
        key: str,
        engine: Engine,
        *,
        site: Site | None = None,
        pace: Pace | None = None,
        collect: Callable[[bytes], list[bytes]] | None = None,
    ) -> None:
        self._site, self._engine, self._collect = site or Site(root, key), engine, collect
        self._pace, self._writing = pace or Pace(), 0.0
        self._host = Host()
        self._thread: threading.Thread | None = None
        self._orders: SimpleQueue[Order | None] = SimpleQueue()
        self._ending, self._idle = threading.Event(), threading.Event()
        self._idle.set()
        self._copying: Copying | None = None
        self._guarded = hasattr(engine, "before_update")
        if self._guarded:
            engine.before_update = self._wait
        self.taken = self.failed = self.left_out = 0
        self.stall = 0.0

    def on_start(self, progress: Progress) -> None:
        self._pace.begin(progress.step)
        self._open()

    def on_step(self, progress: Progress) -> None:
        if not progress.stop and self._engine.resumable and self._pace.due(self._engine, progress.step, self._writing):
            self._save(progress)

    def on_validation(self, progress: Progress) -> None:
        self._save(progress)

    def on_end(self, progress: Progress) -> None:
        self._ending.set()
        if self._thread is not None:
            self._orders.put(None)
            self._thread.join()
            self._thread = None

    def _save(self, progress: Progress) -> None:
        if not self._engine.resumable or progress.step >= progress.steps or progress.averaged:
            return
        clock = time.monotonic()
        self._pace.saved()
        if not self._idle.is_set():
            if self._collect is None:
                self._leave_out(progress.step)
                return
            self._idle.wait()  # left out on one rank alone, it would leave the others waiting to send their parts
        live = self._engine.live() | publication.running(progress)
        others = self._sent(live)
        if self._site.rank == 0 or self._collect is None:
            self._start(progress, live, others)
        self.taken += 1
        self.stall += time.monotonic() - clock
        if not self._guarded:
            self._wait()

    def _sent(self, live: Weights) -> list[Weights]:
        """The parts of all other ranks, on rank 0, where they are on other machines."""
        if self._collect is None:
            return []
        return [load(part) for part in self._collect(save({name: one.contiguous() for name, one in live.items()}))[1:]]

    def _start(self, progress: Progress, live: Weights, others: list[Weights]) -> None:
        moving = {
            name: tensor.clone() for name, tensor in live.items() if name.startswith("buffer@")
        }  # a forward pass may change them
        plain, best = publication.plain_of(self._site, progress), progress.best if self._site.rank == 0 else {}
        self._copying = self._host.begin(live | moving)
        self._open()
        self._idle.clear()
        self._orders.put(Order(progress.step, self._copying, others, best, plain))

    def _open(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            self._thread = threading.Thread(target=self._work, name="checkpoint", daemon=True)
            self._thread.start()

    def _work(self) -> None:
        """The thread: one order after another, until there is to be none."""
        while (order := self._orders.get()) is not None:
            try:
                self._keep(order)
            finally:
                del order  # and with it the best weights, which training may have replaced by now
                self._idle.set()

    def _wait(self) -> None:
        """Until the copy is made: after that the state may change."""
        clock = time.monotonic()
        if self._copying is not None:
            self._copying.wait()
            self._copying = None
        self.stall += time.monotonic() - clock

    def _leave_out(self, step: int) -> None:
        self.left_out += 1
        log.warning("no checkpoint at step %d: the one before it is still being written", step)
        if self._site.rank:
            with suppress(OSError):
                self._site.staged(step).mkdir(parents=True, exist_ok=True)
                publication.leave_note(self._site, step, {"error": "the one before it was still being written"})

    def _keep(self, order: Order) -> None:
        site, step, clock = self._site, order.step, time.monotonic()
        try:
            publication.write_part(site, Image(step, order.copying.whole(), order.best, order.plain))
            for rank, state in enumerate(order.others, start=1):
                publication.write_part(replace(site, rank=rank), Image(step, state, {}, {}))
            if site.rank == 0:
                publication.publish(site, step, given_up=self._ending.is_set)
            self._writing = time.monotonic() - clock
        except (OSError, ValueError, MemoryError, RuntimeError) as error:
            self.failed += 1
            if site.rank == 0:
                publication.abandon(site, step)
            else:
                with suppress(OSError):
                    publication.leave_note(site, step, {"error": str(error)})
            log.error(
                "the checkpoint at step %d could not be kept (%s); the run goes on, and would continue from an older one: %d lost so far",
                step,
                error,
                self.failed,
            )
