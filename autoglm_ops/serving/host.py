"""The model that is served now, and the thread that exchanges it when its name moves (spec S7).

A new model is fetched, checked and tried on a text before it takes over; one assignment exchanges it, so that batches under way end on
the old one. What cannot be had or trusted is refused: the old one goes on, and /metrics and /v1/models say so.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import Classifier, ModelSource
from autoglm_ops.errors import Tampered, TryAgain
from autoglm_ops.serving.metrics import Metrics

log = logging.getLogger(__name__)

RETRY_SECONDS = 60.0
"""A refused model is tried again after this long, since its bytes may have been mended. A new name is tried at once."""


@dataclass(frozen=True)
class Loaded:
    """A model in service. at: since when, seconds since the epoch."""

    ref: ModelRef
    classifier: Classifier
    at: float


@dataclass(frozen=True)
class Refusal:
    """A model that should be served and is not."""

    ref: ModelRef
    reason: str
    retry_at: float


class ModelHost:
    """Holds one loaded model. `start` loads the first and raises what that raises; after that nothing takes the server down."""

    def __init__(
        self, source: ModelSource, metrics: Metrics, refresh_seconds: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._source = source
        self._metrics = metrics
        self._refresh = refresh_seconds
        self._clock = clock
        self._current: Loaded | None = None
        self._complaint = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="model-host", daemon=True)
        self._worker = ThreadPoolExecutor(1, "model-load")
        self.refusal: Refusal | None = None

    @property
    def current(self) -> Loaded:
        if self._current is None:
            raise RuntimeError("the host was not started")
        return self._current

    def start(self) -> None:
        """Load the first model and begin to watch its name."""
        ref = self._source.current()
        self._metrics.looked_up(ok=True)
        self._take(ref, self._source.load(ref))
        self._thread.start()

    def stop(self) -> None:
        """Stop watching; a load under way is waited for."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join()
        self._worker.shutdown(wait=True)

    def poll(self) -> None:
        """Look the name up once, and exchange the model if it moved. Raises what the look-up or the load raises."""
        try:
            ref = self._source.current()
        except BaseException:
            self._metrics.looked_up(ok=False)
            raise
        self._metrics.looked_up(ok=True)
        if ref == self.current.ref:
            self.refusal = None
        elif self.refusal is None or self.refusal.ref != ref or self._clock() >= self.refusal.retry_at:
            self._exchange(ref)

    def _exchange(self, ref: ModelRef) -> None:
        try:
            classifier = self._source.load(ref)
            _probe(classifier)
        except BaseException as error:
            self.refusal = Refusal(ref, f"{type(error).__name__}: {error}", self._clock() + RETRY_SECONDS)
            self._metrics.refused(_word(error))
            raise
        self._take(ref, classifier)

    def _take(self, ref: ModelRef, classifier: Classifier) -> None:
        self._current = Loaded(ref, classifier, self._clock())
        self.refusal = None
        self._metrics.serving(ref)
        log.info("serving %s v%s (%s)", ref.name, ref.version, ref.digest[:12])

    def _watch(self) -> None:
        while not self._stop.wait(self._refresh):
            # As a future, so that whatever a registry or a model file makes a library raise is a value here and ends nothing.
            self._complain(self._worker.submit(self.poll).exception())

    def _complain(self, error: BaseException | None) -> None:
        """Say a trouble once, not every two seconds."""
        complaint = "" if error is None else f"{type(error).__name__}: {error}"
        if complaint and complaint != self._complaint:
            log.error("serving %s v%s on: %s", self.current.ref.name, self.current.ref.version, complaint)
        if error is not None or self.refusal is None:
            self._complaint = complaint


def _probe(classifier: Classifier) -> None:
    """A model that cannot answer one text rightly shaped must not take over from one that can. Raises Tampered."""
    scores = np.asarray(classifier.predict(["?"], 1))
    if scores.shape != (1, len(classifier.labels)) or not np.isfinite(scores).all():
        raise Tampered(
            f"the model answers {scores.shape} {scores.dtype} for one text and {len(classifier.labels)} labels; train it again"
        )


def _word(error: BaseException) -> str:
    if isinstance(error, Tampered):
        return "tampered"
    return "away" if isinstance(error, TryAgain) else "broken"
