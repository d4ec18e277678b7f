"""Two arms of live traffic: equals seldom differ, whoever asks often; a real difference is found."""

from __future__ import annotations

import random

from autoglm_ops.contracts.serving import ArmRow
from autoglm_ops.feedback.arms import compare
from autoglm_ops.serving.arms import drawn


def traffic(draw: random.Random, share: float, gain: float = 0.0, users: int = 100) -> list[ArmRow]:
    """Users that ask from one to twelve times, each with texts of an own difficulty, dealt to v1 and v2."""
    rows = []
    for number in range(users):
        unit, easy = f"{draw.random()}-{number}", min(0.98, draw.betavariate(8, 2))
        version = 2 if drawn(unit, "salt") < share else 1
        answers = [ArmRow(version=version, unit=unit, right=right, day="2026-01-02") for right in (False, True)]
        for _ in range(draw.randint(1, 12)):
            rows.append(answers[draw.random() < easy + (gain if version == 2 else 0)])
    return rows


def test_of_1000_comparisons_of_equals_at_most_50_differ() -> None:
    draw = random.Random(11)
    assert sum(compare(traffic(draw, 0.4)).differs for _ in range(1000)) <= 50


def test_a_gain_of_eight_points_is_found_four_times_of_five() -> None:
    draw = random.Random(12)
    assert sum(compare(traffic(draw, 0.5, 0.08, users=400)).differs for _ in range(50)) >= 40


def test_too_little_is_said_and_not_compared() -> None:
    assert compare([]).reason.startswith("too-few-arms")
    few = [ArmRow(version=version, unit=str(n), right=True, day="2026-01-02") for version in (1, 2) for n in range(5)]
    assert compare(few).reason.startswith("too-few-users") and not compare(few).differs


def test_a_challenger_is_compared_with_its_champion_and_not_with_harder_days() -> None:
    """v1 had an easy month with many users, then v2 a hard one, in which v3 answered a tenth as well as v2 did."""

    def month(version: int, users: int, right: int, day: str) -> list[ArmRow]:
        return [ArmRow(version=version, unit=f"{version}-{n}", right=n % 100 < right, day=day) for n in range(users)]

    easy, hard = month(1, 900, 90, "2026-01-05"), month(2, 800, 60, "2026-02-05")
    told = compare([*easy, *hard, *month(3, 100, 60, "2026-02-05")])
    assert told.reason.startswith("no-clear-difference: v3 is right +0.000") and "than v2" in told.reason
    assert [arm.rows for arm in told.arms] == [900, 800, 100]
    assert compare([*easy, *hard]).reason.startswith("too-few-arms"), "they share no day"


def test_a_user_stays_with_an_arm_and_the_share_is_kept() -> None:
    hits = [drawn(f"user {n}", "digest") < 0.1 for n in range(20_000)]
    assert abs(sum(hits) / len(hits) - 0.1) < 0.01
    assert drawn("user 1", "digest") == drawn("user 1", "digest") != drawn("user 1", "another")
