"""What the server's own counts say: is it slow, does it fail, what does it cost. Pure functions from counted requests to Signals."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from autoglm_ops.contracts.feedback import Signal
from autoglm_ops.contracts.record import Record
from autoglm_ops.contracts.serving import Served

SLOWEST = 0.95
"""The latency signal is of this quantile."""
Z = 1.959964
"""Of 95 % intervals."""


class OperationsPolicy(Record):
    """The section `monitor` of params.yaml, where each key is explained."""

    latency_seconds: float
    error_rate: float
    min_requests: int
    price_per_hour: float = 0.0
    cost_per_thousand: float | None = None


def derive(served: Iterable[Served], version: int, policy: OperationsPolicy) -> tuple[Signal, ...]:
    """Latency, error rate and cost of `version`, fired or not. Nothing when nothing was counted of it."""
    rows = [row for row in served if row.version == version]
    if not rows:
        return ()
    return latency(rows, policy), errors(rows, policy), cost(rows, policy)


def latency(rows: Sequence[Served], policy: OperationsPolicy) -> Signal:
    """Fires when even the lower end of the quantile's interval is over the threshold. Of answered requests only.

    The interval is that of the order statistic (binomial, normal approximation); a bucket counts from its lower end there, so the
    width of the buckets can hide a regression but never make one.
    """
    answered = _answered(rows)
    count = answered.total()
    few = _few("latency", policy.latency_seconds, count, rows, policy)
    if few is not None:
        return few
    half = Z * math.sqrt(count * SLOWEST * (1 - SLOWEST))
    ends = [_bucket(answered, count * SLOWEST + offset) for offset in (-half, 0.0, half)]
    low, value, high = ends[0][0], ends[1][1], ends[2][1]
    fired = low > policy.latency_seconds
    word, side = ("slow", "over") if fired else ("fast-enough", "not clearly over")
    reason = f"{word}: {SLOWEST:.0%} answered within {value:.3g} s [{low:.3g}, {high:.3g}] of {count} requests, {side} {policy.latency_seconds:g} s"
    return _signal("latency", fired, (value, low, high), policy.latency_seconds, count, rows, reason)


def errors(rows: Sequence[Served], policy: OperationsPolicy) -> Signal:
    """Fires when even the lower end of the failed share's interval (Wilson) is over the threshold."""
    count, failed = sum(row.requests for row in rows), sum(row.requests for row in rows if not row.ok)
    few = _few("error-rate", policy.error_rate, count, rows, policy)
    if few is not None:
        return few
    share = failed / count
    middle = (share + Z**2 / (2 * count)) / (1 + Z**2 / count)
    half = Z * math.sqrt(share * (1 - share) / count + Z**2 / (4 * count**2)) / (1 + Z**2 / count)
    low, high = max(0.0, middle - half), min(1.0, middle + half)
    fired = low > policy.error_rate
    word, side = ("failing", "over") if fired else ("answering", "not clearly over")
    reason = f"{word}: {failed} of {count} requests failed, {share:.2%} [{low:.2%}, {high:.2%}], {side} {policy.error_rate:.2%}"
    return _signal("error-rate", fired, (share, low, high), policy.error_rate, count, rows, reason)


def cost(rows: Sequence[Served], policy: OperationsPolicy) -> Signal:
    """Fires when a thousand answers cost more server time, at the price of an hour, than they may. A sum, so without an interval."""
    count, texts = sum(row.requests for row in rows), sum(row.texts for row in rows if row.ok)
    limit = policy.cost_per_thousand
    few = _few("cost", limit or 0.0, count, rows, policy)
    if few is not None or not texts or limit is None or not policy.price_per_hour:
        why = "no-price: monitor.price_per_hour or monitor.cost_per_thousand is not set"
        return few or _signal("cost", False, (0.0, 0.0, 0.0), limit or 0.0, count, rows, why).model_copy(
            update={"silent": True}
        )
    value = sum(row.seconds for row in rows) / 3600 * policy.price_per_hour / texts * 1000
    word, side = ("dear", "over") if value > limit else ("cheap-enough", "within")
    reason = f"{word}: a thousand answers cost {value:.3g}, {side} {limit:g}, over {texts} answers"
    return _signal("cost", value > limit, (value, value, value), limit, count, rows, reason)


def quantile(served: Iterable[Served], version: int) -> float | None:
    """Within how many seconds SLOWEST of a version's requests were answered (a bucket's end); None when none was."""
    answered = _answered(row for row in served if row.version == version)
    return _bucket(answered, answered.total() * SLOWEST)[1] if answered.total() else None


def _answered(rows: Iterable[Served]) -> Counter[tuple[float, float]]:
    """Answered requests by the ends of their bucket."""
    found = Counter[tuple[float, float]]()
    for row in rows:
        found[row.above, row.bound] += row.requests if row.ok else 0
    return found


def _bucket(requests: Mapping[tuple[float, float], int], rank: float) -> tuple[float, float]:
    """The bucket (lower end, upper end) that holds the request of this rank, the last one for a rank beyond them all."""
    bucket, seen = (0.0, 0.0), 0
    for ends in sorted(requests):
        if seen >= rank:
            break
        bucket, seen = ends, seen + requests[ends]
    return bucket


def _few(name: str, threshold: float, count: int, rows: Sequence[Served], policy: OperationsPolicy) -> Signal | None:
    if count >= max(policy.min_requests, 1):
        return None
    reason = f"too-few-requests: {count}, {policy.min_requests} are needed"
    return _signal(name, False, (0.0, 0.0, 0.0), threshold, count, rows, reason).model_copy(update={"silent": True})


def _signal(
    name: str,
    fired: bool,
    value: tuple[float, float, float],
    threshold: float,
    count: int,
    rows: Sequence[Served],
    reason: str,
) -> Signal:
    days = [row.day for row in rows if row.day] or [""]
    fields = {"name": name, "fired": fired, "value": value[0], "low": value[1], "high": value[2], "threshold": threshold}
    return Signal.model_validate({**fields, "rows": count, "window": (min(days), max(days)), "reason": reason})
