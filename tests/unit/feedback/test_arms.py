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
        answers = [ArmRow(version=version, unit=unit, right=right) for right in (False, True)]
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
    few = [ArmRow(version=version, unit=str(n), right=True) for version in (1, 2) for n in range(5)]
    assert compare(few).reason.startswith("too-few-users") and not compare(few).differs


def test_a_user_stays_with_an_arm_and_the_share_is_kept() -> None:
    hits = [drawn(f"user {n}", "digest") < 0.1 for n in range(20_000)]
    assert abs(sum(hits) / len(hits) - 0.1) < 0.01
    assert drawn("user 1", "digest") == drawn("user 1", "digest") != drawn("user 1", "another")
