"""What patches make of the levers, when a person changes params.yaml below them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.contracts.feedback import PatchSet, SearchSpacePatch, Signal
from autoglm_ops.feedback.compiler import FeedbackPolicy, compile_patches
from autoglm_ops.feedback.history import History, in_force
from autoglm_ops.feedback.levers import apply, ends

Make = Callable[..., Signal]
POLICY = FeedbackPolicy(max_step=0.5, cooldown_days=1, expire_days=7)
DAY = date(2026, 1, 5)
RATE = "tune.space.train.learning_rate"


def rates(low: float, high: float) -> dict[str, Any]:
    return {RATE: {"loguniform": [low, high]}}


def round_of(made: list[SearchSpacePatch], space: dict[str, Any], said: list[Signal], day: date) -> list[SearchSpacePatch]:
    """A night: what the loop adds to `made`, each of it in force at once."""
    found = compile_patches(said, space, in_force(made, day), POLICY, day)
    made += found.patches
    applied = apply(space, in_force(made, day), day)
    assert all(patch in applied.standing and applied.levers[patch.key] == patch.new for patch in found.patches)
    return list(found.patches)


def test_after_the_user_changed_a_patched_range_patches_move_what_it_is_now(make_signal: Make) -> None:
    made: list[SearchSpacePatch] = []
    moved = []
    for night in range(20):
        space = rates(5e-4, 1e-2) if night < 2 else rates(1e-3, 8e-3)
        new = round_of(made, space, [make_signal("drift", value=0.5 + night / 100)], DAY + timedelta(days=night))
        moved += [(night, patch.new["loguniform"]) for patch in new]
    assert moved[:5] == [
        (0, [5e-4, 0.0125]),
        (1, [5e-4, 0.015625]),
        (2, [1e-3, 0.01]),
        (3, [1e-3, 0.0125]),
        (4, [1e-3, 0.015625]),
    ]
    assert moved[5] == (5, [1e-3, 0.016]) and moved[6][0] > 12  # at twice its own value it rests until the patches expire
    # Those of the first range have expired by then, though later ones came.
    assert in_force(made[:6], DAY + timedelta(days=9)).patches == tuple(made[2:6])


def test_what_the_user_took_over_from_a_patch_stays_until_the_next_one(make_signal: Make) -> None:
    made: list[SearchSpacePatch] = []
    for night in range(2):
        round_of(made, rates(5e-4, 1e-2), [make_signal("drift", value=0.5 + night / 100)], DAY + timedelta(days=night))
    taken_over = {RATE: made[0].new}
    today = DAY + timedelta(days=2)
    assert apply(taken_over, in_force(made, today), today).levers == taken_over
    [patch] = round_of(made, taken_over, [make_signal("drift", value=0.6)], today)
    assert patch.new == {"loguniform": [5e-4, 0.015625]}


def test_a_value_that_comes_back_has_its_patches_again(make_signal: Make) -> None:
    made: list[SearchSpacePatch] = []
    for night, space in enumerate([rates(5e-4, 1e-2), rates(1e-3, 8e-3), rates(5e-4, 1e-2)]):
        round_of(made, space, [make_signal("drift", value=0.5 + night / 100)], DAY + timedelta(days=night))
    assert [patch.new["loguniform"][1] for patch in made] == [0.0125, 0.01, 0.015625]
    assert [refusal.word for refusal in apply(space, PatchSet(patches=tuple(made)), DAY).skipped] == ["stale"]


def test_what_a_person_undid_is_left_alone_at_the_next_value_too(make_signal: Make, tmp_path: Path) -> None:
    past, other = History(tmp_path / "patches.jsonl"), rates(1e-3, 8e-3)
    past.append(compile_patches([make_signal("drift")], rates(5e-4, 1e-2), PatchSet(), POLICY, DAY).patches)
    past.append(compile_patches([make_signal("drift")], other, past.active(DAY), POLICY, DAY).patches)
    past.undo(1, DAY)
    assert apply(other, past.active(DAY), DAY).levers == other
    for days, space in ((7, other), (7, rates(1e-3, 9e-3))):
        today = DAY + timedelta(days=days)
        found = compile_patches([make_signal("drift", value=0.9)], space, past.active(today), POLICY, today)
        assert {refusal.key: refusal.word for refusal in found.refused}[RATE] == "undone"
    today += timedelta(days=1)
    assert compile_patches([make_signal("drift", value=0.9)], other, past.active(today), POLICY, today).patches


NIGHTS = st.lists(
    st.tuples(
        st.sampled_from([rates(5e-4, 1e-2), rates(1e-3, 8e-3), rates(5e-4, 1.25e-2), rates(4e-4, 1e-2)]),
        st.lists(st.sampled_from(["drift", "variance"]), unique=True),
        st.integers(0, 3),
    ),
    min_size=2,
    max_size=25,
)


@settings(max_examples=60, deadline=None)
@given(NIGHTS)
def test_however_often_params_yaml_changes_every_patch_counts_and_keeps_the_bounds(nights: list[Any]) -> None:
    made: list[SearchSpacePatch] = []
    today, at = DAY, 0
    for space, names, pause in nights:
        today, at = today + timedelta(days=pause), at + 1
        fields = {"fired": True, "value": at / 100, "threshold": 0.0, "low": at / 100, "high": at / 100, "rows": 300}
        said = [Signal.model_validate({**fields, "name": name, "window": ("", ""), "reason": "measured"}) for name in names]
        round_of(made, space, said, today)
        assert round_of(made, space, said, today) == []
        present = apply(space, in_force(made, today), today)
        own, now = ends(space[RATE]), ends(present.levers[RATE])
        assert all(own[end] / 2 * (1 - 1e-9) <= now[end] <= own[end] * 2 * (1 + 1e-9) for end in own)
        ways = {way for patch in present.standing for way in patch.evidence["moved"].values()}
        assert len(ways) < 2  # none turned round
