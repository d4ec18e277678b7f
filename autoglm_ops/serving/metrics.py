"""What the server tells Prometheus. The only module that knows prometheus_client."""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4 as CONTENT_TYPE
from prometheus_client.parser import text_string_to_metric_families

from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import FeedbackCounts, Served
from autoglm_ops.errors import BadData

__all__ = ["CONTENT_TYPE", "Metrics", "read_served"]

ROUTE = "/v1/classify"

_LATENCY = (0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One registry per server, so that two servers in one process do not add up."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        self._requests = Counter("autoglm_requests", "Requests answered", ["route", "method", "status"], registry=registry)
        self._seconds = Histogram(
            "autoglm_request_seconds", "Time to answer", ["route", "outcome"], buckets=_LATENCY, registry=registry
        )
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
        self._seconds.labels(route, "ok" if status < 400 else "client" if status < 500 else "failed").observe(seconds)

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


def read_served(text: str, day: str, version: int) -> list[Served]:
    """What a server's metrics in Prometheus' text format say of /v1/classify since it started, as counted on `day` for `version`.

    Raises BadData for what is no such text. Durations are those of the answers that are no error; requests that failed (5xx) are counted
    without one, a client's own mistakes (4xx) not at all, and texts are not told there.
    """
    totals: dict[float, float] = {}
    seconds, failed = 0.0, 0.0
    try:
        for sample in (sample for family in text_string_to_metric_families(text) for sample in family.samples):
            if sample.labels.get("route") != ROUTE:
                continue
            answered = sample.labels.get("outcome") == "ok"
            if answered and sample.name == "autoglm_request_seconds_bucket":
                bound = float(sample.labels["le"])
                totals[bound] = totals.get(bound, 0.0) + sample.value
            seconds += sample.value if answered and sample.name == "autoglm_request_seconds_sum" else 0.0
            bad = sample.name == "autoglm_requests_total" and sample.labels["status"].startswith("5")
            failed += sample.value if bad else 0.0
        return _served(totals, seconds, failed, day, version)
    except (ValueError, KeyError, OverflowError) as error:
        raise BadData(f"this is no Prometheus text of an autoglm server: {error}") from error


def _served(totals: dict[float, float], seconds: float, failed: float, day: str, version: int) -> list[Served]:
    """Cumulative counts by bound as counts per bucket. The last bucket has no end: it takes twice the bound before it."""
    rows: list[Served] = []
    before, last = 0.0, 0.0
    for bound in sorted(totals):
        count, before = totals[bound] - before, totals[bound]
        above, last = last, bound if bound != float("inf") else 2 * last
        if count > 0:
            fields = {"day": day, "version": version, "ok": True, "above": above, "bound": last, "texts": 0}
            fields["requests"] = int(count)
            rows.append(Served.model_validate({**fields, "seconds": 0.0 if rows else seconds}))
    if failed > 0:
        rows.append(
            Served(day=day, version=version, ok=False, above=0.0, bound=last, requests=int(failed), texts=0, seconds=0.0)
        )
    return rows
