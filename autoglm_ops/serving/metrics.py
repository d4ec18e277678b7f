"""What the server tells Prometheus. The only module that knows prometheus_client."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE

from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import FeedbackCounts

__all__ = ["CONTENT_TYPE", "Metrics"]

_LATENCY = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One registry per server, so that two servers in one process do not add up."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter("autoglm_requests", "Requests answered", ["route", "method", "status"], registry=registry)
        self._seconds = Histogram("autoglm_request_seconds", "Time to answer", ["route"], buckets=_LATENCY, registry=registry)
        self._batch = Histogram("autoglm_batch_texts", "Texts per batch", buckets=_SIZES, registry=registry)
        self._inference = Histogram("autoglm_inference_seconds", "Model time per batch", buckets=_LATENCY, registry=registry)
        self._waiting = Gauge("autoglm_waiting_texts", "Texts admitted and not yet answered", registry=registry)
        self._predictions = Counter("autoglm_predictions", "Texts answered", ["label", "version"], registry=registry)
        self._model = Gauge(
            "autoglm_model_info", "1 for the model served now", ["name", "version", "digest"], registry=registry
        )
        self._swaps = Counter("autoglm_swaps", "Models taken into service", registry=registry)
        self._refused = Counter("autoglm_swap_failures", "Models not taken into service", ["reason"], registry=registry)
        self._lookups = Counter("autoglm_lookup_failures", "Times the registry could not be asked", registry=registry)
        self._lookup_ok = Gauge("autoglm_registry_up", "1 when the last look-up was answered", registry=registry)
        self._feedback = Counter("autoglm_feedback", "Feedback items", ["outcome"], registry=registry)
        self._judged = Counter(
            "autoglm_labels", "Labels that came back, against what was answered", ["agrees"], registry=registry
        )

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def batch(self, texts: int, seconds: float) -> None:
        self._batch.observe(texts)
        self._inference.observe(seconds)

    def watch_waiting(self, waiting: Callable[[], int]) -> None:
        self._waiting.set_function(waiting)

    def predicted(self, labels: Iterable[str], version: int) -> None:
        for label, count in Tally(labels).items():
            self._predictions.labels(label, str(version)).inc(count)

    def serving(self, ref: ModelRef) -> None:
        self._model.clear()
        self._model.labels(ref.name, str(ref.version), ref.digest).set(1)
        self._swaps.inc()

    def refused(self, reason: str) -> None:
        self._refused.labels(reason).inc()

    def looked_up(self, *, ok: bool) -> None:
        self._lookup_ok.set(int(ok))
        self._lookups.inc(int(not ok))

    def feedback(self, counts: FeedbackCounts) -> None:
        outcomes = {
            "accepted": counts.accepted,
            "replaced": counts.replaced,
            "repeated": counts.repeated,
            "unknown": counts.unknown,
        }
        for outcome, count in {**outcomes, **counts.refused}.items():
            self._feedback.labels(outcome).inc(count)
        self._judged.labels("yes").inc(counts.agreed)
        self._judged.labels("no").inc(counts.disagreed)

    def render(self) -> bytes:
        """Everything, in Prometheus' text format."""
        return generate_latest(self._registry)
