"""Who is not believed: hostile reporters are, honest ones are not, whatever the champion's quality is that day."""

from __future__ import annotations

import random

import pytest

from autoglm_ops.contracts.serving import ReporterTally
from autoglm_ops.feedback.reporters import distrusted


def day(draw: random.Random, honest: int, hostile: int, quality: float, rows: int = 60) -> list[ReporterTally]:
    def tally(name: str, share: float) -> ReporterTally:
        return ReporterTally(day="2026-01-05", source=name, rows=rows, agreed=sum(draw.random() < share for _ in range(rows)))

    return [tally(f"honest-{n}", quality) for n in range(honest)] + [tally(f"hostile-{n}", 1 - quality) for n in range(hostile)]


@pytest.mark.parametrize("quality", [0.7, 0.8, 0.95])
@pytest.mark.parametrize("hostile", [0, 1, 3])
def test_hostile_reporters_are_left_out_and_honest_ones_stay(quality: float, hostile: int) -> None:
    draw, missed, wronged = random.Random(1), 0, 0
    for _ in range(200):
        found = {source for _, source in distrusted(day(draw, 10 - hostile, hostile, quality))}
        missed += sum(f"hostile-{n}" not in found for n in range(hostile))
        wronged += sum(name.startswith("honest") for name in found)
    assert missed <= 0.05 * 200 * max(hostile, 1) and wronged <= 0.02 * 200 * 10


def test_two_reporters_cannot_be_told_apart_and_few_rows_are_not_judged() -> None:
    draw = random.Random(2)
    assert distrusted(day(draw, 1, 1, 0.9)) == {}
    assert distrusted(day(draw, 5, 1, 0.9, rows=4)) == {}


def test_a_day_is_judged_by_itself() -> None:
    good = [ReporterTally(day="2026-01-05", source=f"r{n}", rows=50, agreed=45) for n in range(3)]
    bad = [ReporterTally(day="2026-01-06", source=f"r{n}", rows=50, agreed=20) for n in range(3)]
    assert distrusted([*good, *bad]) == {}
