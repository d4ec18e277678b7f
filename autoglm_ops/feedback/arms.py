"""Two arms of live traffic compared: is one right more often. Pure.

Who asks is the unit that was drawn, and one user's requests resemble one another, so the errors are those of a ratio over users
(linearised; Cochran 1977, ch. 6), not of so many independent answers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from statistics import NormalDist

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
    """Compare the two versions with the most users. Says too-few-arms or too-few-users where there is nothing to compare."""
    by_version: dict[int, list[ArmRow]] = {}
    for row in rows:
        by_version.setdefault(row.version, []).append(row)
    found = {version: _arm(version, chosen) for version, chosen in by_version.items()}
    arms = tuple(found[version][0] for version in sorted(found))
    if len(arms) < 2:
        return Comparison(arms=arms, reason="too-few-arms: one version answered all that was judged")
    pair = sorted(sorted(arms, key=lambda arm: -arm.units)[:2], key=lambda arm: arm.version)
    if min(arm.units for arm in pair) < MIN_UNITS:
        few = f"too-few-users: {pair[0].units} and {pair[1].units}, {MIN_UNITS} each are needed"
        return Comparison(arms=arms, reason=few)
    error = math.hypot(*(found[arm.version][1] for arm in pair))
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
