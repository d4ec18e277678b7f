"""Several objectives at once: which trials no other one beats in all of them, and the one of these that is chosen. Pure.

The rule: every objective is scaled to the front's own range, 0 its best and 1 its worst, and the trial nearest to the ideal point (all 0)
is chosen; of equally near ones that of higher quality, then the earlier one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from autoglm_ops.contracts.training import Trial, TuningReport
from autoglm_ops.errors import UsageError

RULE = "the trial of the Pareto front that is nearest to the ideal point, each objective scaled to the front's range"
Point = tuple[float, ...]
"""What is to be made small, quality as its negative first."""


def pareto(points: Sequence[Point]) -> list[int]:
    """The places of the points that no other one beats: nowhere worse, somewhere better."""
    return [place for place, point in enumerate(points) if not any(_beats(other, point) for other in points)]


def knee(points: Sequence[Point]) -> int:
    """The place, among the points of a front, of the chosen one. Raises UsageError when there is none."""
    if not points:
        raise UsageError("a front without a point has no knee; train a trial first")
    lows, highs = [min(axis) for axis in zip(*points, strict=True)], [max(axis) for axis in zip(*points, strict=True)]

    def far(point: Point) -> float:
        scaled = (
            (value - low) / (high - low) if high > low else 0.0 for value, low, high in zip(point, lows, highs, strict=True)
        )
        return round(math.sqrt(sum(part * part for part in scaled)), 12)

    return min(range(len(points)), key=lambda place: (far(points[place]), points[place], place))


def settle(report: TuningReport, objectives: Sequence[str], costs: Mapping[int, Mapping[str, float]]) -> TuningReport:
    """The report with each trial's costs, the front, and the knee as the best. `objectives`: quality, then names of costs."""
    trials = tuple(trial.model_copy(update={"costs": dict(costs.get(trial.number, {}))}) for trial in report.trials)
    done = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    points = [_point(trial, objectives) for trial in done]
    places = pareto(points)
    chosen = done[places[knee([points[place] for place in places])]]
    said = ", ".join(f"{name} {chosen.costs[name]:g}" for name in objectives[1:])
    why = f"trial {chosen.number} is the knee of {len(places)} trials on the front: {chosen.value}, {said}; {RULE}"
    return report.model_copy(
        update={
            "trials": trials,
            "objectives": tuple(objectives),
            "front": tuple(done[place].number for place in places),
            "best": chosen.params,
            "best_value": chosen.value,
            "reasons": (*report.reasons, why),
        }
    )


def _point(trial: Trial, objectives: Sequence[str]) -> Point:
    return (-(trial.value or 0.0), *(trial.costs[name] for name in objectives[1:]))


def _beats(one: Point, other: Point) -> bool:
    return all(a <= b for a, b in zip(one, other, strict=True)) and one != other
