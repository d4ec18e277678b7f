"""Entries of the search space with `step` and `when`: what a patch makes of them is an entry still, in whatever order their keys stand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date, timedelta
from itertools import permutations
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.contracts.feedback import PatchSet, SearchSpacePatch, Signal
from autoglm_ops.feedback.compiler import BOUNDS, FeedbackPolicy, compile_patches
from autoglm_ops.feedback.levers import SPACE, apply, ends, grid_of
from autoglm_ops.feedback.rules import Rule
from autoglm_ops.tuning.space import TUNABLE, parse_space

Make = Callable[..., Signal]
POLICY = FeedbackPolicy(max_step=0.5, cooldown_days=1, expire_days=7)
DAY = date(2026, 1, 5)
WIDTH, RATE = "model.hidden_size", "train.learning_rate"
WHEN = {"when": {"model.layers": [2]}}


@pytest.mark.parametrize(
    ("signal", "key", "entry", "bounds"),
    [
        ("latency", WIDTH, {"int": [64, 256], "step": 32}, {"int": [64, 224]}),
        ("quality", WIDTH, {"int": [64, 256], "step": 8, **WHEN}, {"int": [64, 272]}),
        ("quality", WIDTH, {"adaptive": [64, 256], **WHEN}, {"adaptive": [64, 272]}),
        ("quality", WIDTH, {"choice": [64, 96], **WHEN}, {"choice": [64, 96, 112]}),
        ("drift", RATE, {"loguniform": [1e-3, 8e-3], **WHEN}, {"loguniform": [1e-3, 0.01]}),
    ],
)
def test_whatever_the_order_of_its_keys_an_entry_moves_by_its_step(
    signal: str, key: str, entry: dict[str, Any], bounds: dict[str, Any], make_signal: Make
) -> None:
    policy = POLICY.model_copy(update={"grains": {WIDTH: 16}})
    for order in permutations(entry):
        space = {f"{SPACE}{key}": {name: entry[name] for name in order}}
        (patch,) = (one for one in compile_patches([make_signal(signal)], space, PatchSet(), policy, DAY).patches)
        assert patch.new == entry | bounds


def test_a_step_too_wide_for_one_patch_or_off_the_grain_leaves_the_range(make_signal: Make) -> None:
    for entry in ({"int": [64, 256], "step": 64}, {"int": [40, 72], "step": 16}):
        policy = POLICY.model_copy(update={"grains": {WIDTH: 16}})
        found = compile_patches([make_signal("latency")], {f"{SPACE}{WIDTH}": entry}, PatchSet(), policy, DAY)
        assert [one.word for one in found.refused if one.key.endswith(WIDTH)] == ["bound"]


@given(st.integers(0, 200), st.integers(1, 50), st.integers(1, 10), st.integers(1, 64))
def test_the_grid_is_where_steps_and_grain_meet(low: int, apart: int, count: int, grain: int) -> None:
    grid = grid_of({"step": apart, "int": [low, low + apart * count]}, grain)
    met = [number for number in range(8000) if number % grain == 0 and (apart == 1 or (number - low) % apart == 0)]
    assert met == ([] if grid is None else [number for number in range(8000) if (number - grid[0]) % grid[1] == 0])


KEYS = sorted(TUNABLE & BOUNDS.keys())


@st.composite
def entries(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A key and a valid entry for it, its keys in any order."""
    key = draw(st.sampled_from(KEYS))
    low = draw(st.integers(0, 600) if BOUNDS[key][1] > 1 else st.integers(0, 1))
    if draw(st.booleans()):
        step = draw(st.integers(1, 80))
        entry: dict[str, Any] = {"int": [low, low + step * draw(st.integers(0, 8))], "step": step}
    else:
        entry = {draw(st.sampled_from(["uniform", "loguniform"])): [low + 1e-3, low + 1e-3 + draw(st.floats(0, 500))]}
    entry |= {"when": {"train.warmup_share": [0.1]}} if draw(st.booleans()) else {}
    return key, {name: entry[name] for name in draw(st.permutations(list(entry)))}


@settings(max_examples=300, deadline=None)
@given(
    entries(),
    st.one_of(st.tuples(st.floats(0.1, 10), st.none()), st.tuples(st.none(), st.floats(-100, 100))),
    st.sampled_from([None, 0.3, 7.5, 40.0]),
    st.sampled_from([("low",), ("high",), ("low", "high")]),
    st.sampled_from([0, 1, 8, 16, 48]),
    st.booleans(),
    st.floats(0.05, 0.9),
)
def test_a_patched_entry_is_accepted_and_within_bounds_and_step(
    item: Any, change: Any, start: Any, sides: Any, grain: int, notched: bool, most: float
) -> None:
    key, entry = item
    rule = Rule(when=("quality",), key=key, multiply=change[0], add=change[1], start=start, ends=sides, reason="wild")
    more = {"grains": {key: grain} if grain else {}, "notches": {key: (2, 4, 6, 8, 16, 64, 96, 128)} if notched else {}}
    policy, base = POLICY.model_copy(update={"max_step": most, **more}), {f"{SPACE}{key}": entry}
    made: tuple[SearchSpacePatch, ...] = ()
    for night in range(4):
        today, value = DAY + timedelta(days=night), night / 10
        fields = {"name": "quality", "fired": True, "value": value, "threshold": 1, "low": value, "high": value, "rows": 300}
        said = [Signal.model_validate({**fields, "window": ("", ""), "reason": "measured"})]
        found = compile_patches(said, base, PatchSet(patches=made), policy, today, [rule]).patches
        made += found
        now = apply(base, PatchSet(patches=made), today).levers[f"{SPACE}{key}"]
        parse_space({key: now, "train.warmup_share": {"choice": [0.1]}})
        assert now.keys() == entry.keys() and all(now[name] == entry[name] for name in ("step", "when") if name in entry)
        for patch in found:
            old, new = ends(patch.old), ends(patch.new)
            for end in old.keys() if old != new else ():
                kept = new[end] == old[end] or BOUNDS[key][0] <= new[end] <= BOUNDS[key][1]
                reach = most * abs(old[end]) * (1 + 1e-9)
                assert kept and (notched or old[end] == 0 or abs(new[end] - old[end]) <= reach)
