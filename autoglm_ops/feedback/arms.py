"""Two arms of live traffic compared: is one right more often. Pure.

Who asks is the unit that was drawn, and one user's requests resemble one another, so the errors are those of a ratio over users
(linearised; Cochran 1977, ch. 6), not of so many independent answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import combinations
from statistics import NormalDist
from typing import NamedTuple

from autoglm_ops.contracts.record import Record
from autoglm_ops.contracts.release import Interval
from autoglm_ops.contracts.serving import ArmRow

MIN_UNITS = 30
LEVEL = 0.025
"""Two-sided. Half of 5 %, for the reason the gate has: at the level itself every second count of false alarms is above it."""


class ArmTold(Record):
    """One arm: its version, judged answers, users, and the share of right answers with its 95 % interval."""

    version: int
    rows: int
    units: int
    right: Interval


class Comparison(Record):
    """The later version's share of right answers minus the earlier one's. `differs` is the verdict, `reason` says why."""

    arms: tuple[ArmTold, ...]
    difference: Interval | None = None
    p_value: float | None = None
    differs: bool = False
    reason: str


def compare(rows: Iterable[ArmRow]) -> Comparison:
    """Compare the two versions that last answered on one day, over the days they share: others saw other days, which were perhaps
    harder. Says too-few-arms or too-few-users where there is nothing to compare. `arms` are all versions, over all their days.
    """
    by_version: dict[int, list[ArmRow]] = {}
    for row in rows:
        by_version.setdefault(row.version, []).append(row)
    arms = tuple(_arm(version, by_version[version])[0] for version in sorted(by_version))
    shared = [_shared(by_version, *pair) for pair in combinations(sorted(by_version), 2)]
    if not any(shared):
        return Comparison(arms=arms, reason="too-few-arms: no two versions answered on one day of those judged")
    found = max(filter(None, shared), key=lambda both: (both.last, min(both.first[0].units, both.second[0].units)))
    pair = (found.first[0], found.second[0])
    if min(arm.units for arm in pair) < MIN_UNITS:
        few = f"too-few-users: {pair[0].units} and {pair[1].units}, {MIN_UNITS} each are needed"
        return Comparison(arms=arms, reason=few)
    error = math.hypot(found.first[1], found.second[1])
    gain = pair[1].right.estimate - pair[0].right.estimate
    p_value = 2 * (1 - NormalDist().cdf(abs(gain) / error)) if error else float(gain == 0)
    interval = Interval(estimate=gain, low=gain - 1.96 * error, high=gain + 1.96 * error)
    told = f"v{pair[1].version} is right {gain:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] more often than v{pair[0].version}"
    differs = p_value <= LEVEL
    return Comparison(
        arms=arms,
        difference=interval,
        p_value=p_value,
        differs=differs,
        reason=f"{'differs' if differs else 'no-clear-difference'}: {told}, p = {p_value:.2g}",
    )


class _Shared(NamedTuple):
    """Two arms with their errors, over the days both answered on, and the last of these."""

    first: tuple[ArmTold, float]
    second: tuple[ArmTold, float]
    last: str


def _shared(rows: dict[int, list[ArmRow]], first: int, second: int) -> _Shared | None:
    days = {row.day for row in rows[first]} & {row.day for row in rows[second]}
    if not days:
        return None
    one, other = (_arm(version, [row for row in rows[version] if row.day in days]) for version in (first, second))
    return _Shared(one, other, max(days))


def _arm(version: int, rows: Sequence[ArmRow]) -> tuple[ArmTold, float]:
    """The arm, and the standard error of its share over users."""
    units: dict[str, list[bool]] = {}
    for row in rows:
        units.setdefault(row.unit, []).append(row.right)
    share = sum(row.right for row in rows) / len(rows)
    squares = sum((sum(right) - share * len(right)) ** 2 for right in units.values())
    error = math.sqrt(squares * len(units) / max(len(units) - 1, 1)) / len(rows)
    interval = Interval(estimate=share, low=max(0.0, share - 1.96 * error), high=min(1.0, share + 1.96 * error))
    return ArmTold(version=version, rows=len(rows), units=len(units), right=interval), error
