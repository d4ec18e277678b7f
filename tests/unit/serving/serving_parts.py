"""A classifier, a source of it, and a real server in a thread of the test's process."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray

from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import Classifier
from autoglm_ops.feedback.intake import Intake
from autoglm_ops.serving import app, server
from autoglm_ops.serving.app import Parts
from autoglm_ops.serving.host import ModelHost
from autoglm_ops.serving.keys import Keys
from autoglm_ops.serving.metrics import Metrics

KEY = "k-0123456789abcdef"
ALLOWED = {"authorization": f"Bearer {KEY}"}


class ByLength:
    """Says "pos" of a text with an even number of characters, and how sure it is by how long the text is."""

    labels = ("neg", "pos")

    def __init__(self, seconds: float = 0.0, flip: bool = False) -> None:
        self.seconds = seconds
        self.flip = flip
        self.batches: list[int] = []

    def predict(self, texts: Sequence[str], batch_size: int) -> NDArray[np.float64]:
        time.sleep(self.seconds)
        self.batches.append(len(texts))
        sure = np.array([0.5 + 0.5 / (1 + len(text)) for text in texts])
        positive = np.array([(len(text) % 2 == 0) != self.flip for text in texts])
        share = np.where(positive, sure, 1 - sure)
        return np.stack([1 - share, share], axis=1)


class Shelf:
    """A source whose alias the test moves. A model that is an exception is raised when it is loaded."""

    def __init__(self, **models: Classifier | Exception) -> None:
        self.models = models
        self.alias = "v1"
        self.away: Exception | None = None
        self.loads: list[str] = []

    def current(self) -> ModelRef:
        if self.away is not None:
            raise self.away
        return self.ref(self.alias)

    def load(self, ref: ModelRef) -> Classifier:
        name = f"v{ref.version}"
        self.loads.append(name)
        model = self.models[name]
        if isinstance(model, Exception):
            raise model
        return model

    @staticmethod
    def ref(name: str) -> ModelRef:
        return ModelRef(name="autoglm", version=int(name[1:]), digest=name[1:] * 64)


@contextmanager
def made(tmp_path: Path, shelf: Shelf, **changes: object) -> Iterator[Parts]:
    """The parts of a server, its host started."""
    metrics = Metrics()
    host = ModelHost(shelf, metrics, refresh_seconds=0.05)
    host.start()
    memory = Intake(tmp_path / "requests.db")
    try:
        yield replace(Parts(host=host, memory=memory, metrics=metrics, keys=Keys([KEY])), **changes)
    finally:
        host.stop()
        memory.close()


@contextmanager
def running(parts: Parts) -> Iterator[str]:
    """A real uvicorn on a free port in a thread; its URL."""
    listener = server.bind("127.0.0.1", 0)
    ready = threading.Event()
    web = server.Server(app.build(parts), ready.set)
    thread = threading.Thread(target=web.run, kwargs={"sockets": [listener]})
    thread.start()
    assert ready.wait(10)
    try:
        yield server.address(listener)
    finally:
        web.should_exit = True
        thread.join(15)
        listener.close()


@contextmanager
def serving(tmp_path: Path, shelf: Shelf, **changes: object) -> Iterator[tuple[httpx.Client, Parts]]:
    """A running server made of these, and a client with its key."""
    with (
        made(tmp_path, shelf, **changes) as parts,
        running(parts) as url,
        # httpcore closes a connection above 20 idle ones that another thread has just been given (EBADF): here none is closed.
        httpx.Client(base_url=url, headers=ALLOWED, timeout=30, limits=httpx.Limits(max_keepalive_connections=None)) as http,
    ):
        yield http, parts


def eventually(truth: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it becomes true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if truth():
            return True
        time.sleep(0.01)
    return truth()
