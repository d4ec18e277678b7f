"""Dynamic batching: requests that arrive together, or while the model is busy, are answered by one call of it (spec S3).

A request is never split, so all of its answers come from one model. The event loop gathers while one thread predicts.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.contracts.serving import Classifier
from autoglm_ops.serving.faults import RequestError
from autoglm_ops.serving.host import Loaded
from autoglm_ops.serving.metrics import Metrics

log = logging.getLogger(__name__)

PADDED_TOGETHER = 8
"""Texts of like length per forward pass. 32 random reviews cost 2.8 ms a text when all are padded to the longest, and 1.5 ms in
eights sorted by length (one core, the default model)."""


@dataclass(frozen=True)
class Answer:
    """What one request gets. scores: float [texts, labels of `loaded`]."""

    loaded: Loaded
    scores: NDArray[np.floating]


@dataclass(frozen=True)
class _Job:
    texts: Sequence[str]
    future: asyncio.Future[Answer]


@dataclass(frozen=True)
class Policy:
    """max_batch: texts per call of the model (a larger request goes whole). wait_seconds: how long a small batch waits for company.
    queue: texts that may be waiting; more are refused."""

    max_batch: int = 32
    wait_seconds: float = 0.002
    queue: int = 1024


class Batcher:
    """Answers through `current()`, asked anew for every batch."""

    def __init__(self, current: Callable[[], Loaded], policy: Policy, metrics: Metrics) -> None:
        self._current = current
        self._policy = policy
        self._metrics = metrics
        self._jobs: deque[_Job] = deque()
        self._waiting = 0
        self._arrived = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, "inference")
        self._task: asyncio.Task[None] | None = None
        metrics.watch_waiting(lambda: self._waiting)

    @property
    def alive(self) -> bool:
        return self._task is not None and not self._task.done()

    def start(self) -> None:
        """Begin to answer, on the running event loop."""
        self._task = asyncio.create_task(self._run(), name="batcher")

    async def stop(self) -> None:
        """Stop; what still waits is cancelled."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        for job in self._jobs:
            job.future.cancel()
        self._thread.shutdown(wait=True)

    async def classify(self, texts: Sequence[str]) -> Answer:
        """The model's answer. Raises RequestError 503 at once when too much is waiting. Cancelled, its texts are dropped from the queue."""
        if self._waiting and self._waiting + len(texts) > self._policy.queue:
            message = f"{self._waiting} texts are waiting and at most {self._policy.queue} may; try again later"
            raise RequestError(503, "overloaded", message, retry_after=1)
        job = _Job(texts, asyncio.get_running_loop().create_future())
        self._jobs.append(job)
        self._waiting += len(texts)
        self._arrived.set()
        try:
            return await job.future
        finally:
            self._waiting -= len(texts)

    async def _run(self) -> None:
        while True:
            await self._arrived.wait()
            if self._policy.wait_seconds and self._waiting < self._policy.max_batch:
                await asyncio.sleep(self._policy.wait_seconds)
            jobs = self._gather()
            if jobs:
                await self._answer(jobs)

    def _gather(self) -> list[_Job]:
        """Jobs up to `max_batch` texts, at least one; those nobody waits for any more are dropped."""
        jobs: list[_Job] = []
        size = 0
        while self._jobs and (not jobs or size + len(self._jobs[0].texts) <= self._policy.max_batch):
            job = self._jobs.popleft()
            if not job.future.done():
                jobs.append(job)
                size += len(job.texts)
        if not self._jobs:
            self._arrived.clear()
        return jobs

    async def _answer(self, jobs: list[_Job]) -> None:
        loaded = self._current()
        texts = [text for job in jobs for text in job.texts]
        started = time.perf_counter()
        work = asyncio.get_running_loop().run_in_executor(self._thread, predict, loaded.classifier, texts, PADDED_TOGETHER)
        await asyncio.wait([work])  # as a value: a batch that fails must fail its own requests and nothing else
        self._metrics.batch(len(texts), time.perf_counter() - started)
        error = work.exception()
        if error is not None:
            log.error("a batch of %d texts failed", len(texts), exc_info=error)
        end = 0
        for job in jobs:
            start, end = end, end + len(job.texts)
            if job.future.done():
                continue
            if error is not None:
                job.future.set_exception(
                    RequestError(500, "inference_failed", "the model failed on this batch; the server's log says how")
                )
            else:
                job.future.set_result(Answer(loaded, work.result()[start:end]))


def predict(classifier: Classifier, texts: Sequence[str], batch_size: int) -> NDArray[np.floating]:
    """The classifier's scores, with their shape checked: half an answer must not be dealt out to the wrong texts."""
    scores = np.asarray(classifier.predict(texts, batch_size))
    if scores.shape != (len(texts), len(classifier.labels)) or not np.isfinite(scores).all():
        raise ArithmeticError(
            f"{len(texts)} texts and {len(classifier.labels)} labels, but the model answered {scores.shape} or not numbers"
        )
    return scores
