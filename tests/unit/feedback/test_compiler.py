"""Signals to patches: the causal table, and the bounds that no sequence of signals can break."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.contracts.feedback import PatchSet, SearchSpacePatch, Signal
from autoglm_ops.feedback.compiler import BOUNDS, FeedbackPolicy, compile_patches
from autoglm_ops.feedback.history import UNDO, History
from autoglm_ops.feedback.levers import SPACE, apply, ends, levers, undo
from autoglm_ops.feedback.rules import RULES, Rule

Make = Callable[..., Signal]
POLICY = FeedbackPolicy(max_step=0.5, cooldown_days=1, expire_days=7)
DAY = date(2026, 1, 5)
BASE: dict[str, Any] = {
    "tune.space.train.learning_rate": {"loguniform": [5e-4, 1e-2]},
    "tune.space.train.weight_decay": {"loguniform": [1e-3, 0.3]},
    "tune.space.model.dropout": {"uniform": [0.0, 0.4]},
    "model.hidden_size": 64,
    "train.epochs": 3.0,
}


def words(refused: Any) -> dict[str, str]:
    return {refusal.key: refusal.word for refusal in refused}


def test_quality_without_drift_widens_regularisation_and_capacity(make_signal: Make) -> None:
    found = compile_patches([make_signal("quality"), make_signal("drift", False)], BASE, PatchSet(), POLICY, DAY)
    assert {patch.key: patch.new for patch in found.patches} == {
        "tune.space.model.dropout": {"uniform": [0.0, 0.5]},
        "tune.space.train.weight_decay": {"loguniform": [1e-3, 0.3 * 1.5]},
        "model.hidden_size": 80,
    }
    assert words(found.refused) == {"drift": "no-signal", "train.token_dropout": "no-lever"}
    patch = found.patches[0]
    assert patch.evidence["signals"]["quality"]["rows"] == 300
    assert (patch.created, patch.expires) == ("2026-01-05", "2026-01-12")


def test_drift_allows_larger_steps_and_with_lost_quality_more_passes(make_signal: Make) -> None:
    alone = compile_patches([make_signal("drift"), make_signal("quality", False)], BASE, PatchSet(), POLICY, DAY)
    assert [patch.key for patch in alone.patches] == ["tune.space.train.learning_rate"]
    both = compile_patches([make_signal("drift"), make_signal("quality")], BASE, PatchSet(), POLICY, DAY)
    assert {patch.key for patch in both.patches} == {"tune.space.train.learning_rate", "train.epochs"}


def test_nothing_fired_nothing_moves(make_signal: Make) -> None:
    found = compile_patches([make_signal("quality", False)], BASE, PatchSet(), POLICY, DAY)
    assert found.patches == ()
    assert words(found.refused) == {"quality": "no-signal"}


def test_same_evidence_then_cooldown_then_again(make_signal: Make) -> None:
    first = compile_patches([make_signal("drift")], BASE, PatchSet(), POLICY, DAY)
    active = PatchSet(patches=first.patches)
    key = "tune.space.train.learning_rate"
    again = compile_patches([make_signal("drift")], BASE, active, POLICY, DAY + timedelta(days=3))
    assert (again.patches, words(again.refused)[key]) == ((), "seen")
    soon = compile_patches([make_signal("drift", value=0.6)], BASE, active, POLICY, DAY)
    assert (soon.patches, words(soon.refused)[key]) == ((), "cooldown")
    later = compile_patches([make_signal("drift", value=0.6)], BASE, active, POLICY, DAY + timedelta(days=1))
    assert later.patches[0].old == first.patches[0].new


def test_no_way_back_while_a_patch_is_in_force(make_signal: Make) -> None:
    up = compile_patches([make_signal("quality"), make_signal("drift", False)], BASE, PatchSet(), POLICY, DAY)
    down = compile_patches([make_signal("latency")], BASE, PatchSet(patches=up.patches), POLICY, DAY + timedelta(days=2))
    assert words(down.refused)["model.hidden_size"] == "hysteresis"


def test_what_a_person_undid_is_left_alone(make_signal: Make) -> None:
    patch = compile_patches([make_signal("drift")], BASE, PatchSet(), POLICY, DAY).patches[0]
    back = patch.model_copy(update={"old": patch.new, "new": patch.old, "signal": UNDO, "evidence": {}})
    found = compile_patches(
        [make_signal("drift", value=0.9)], BASE, PatchSet(patches=(patch, back)), POLICY, DAY + timedelta(days=2)
    )
    assert words(found.refused)["tune.space.train.learning_rate"] == "undone"


def test_a_lever_that_is_not_there_or_has_no_bound_is_refused_by_word(make_signal: Make) -> None:
    rules = [Rule(when=("quality",), key=key, multiply=1.1, reason="r") for key in ("model.layers", "train.gradient_clip")]
    found = compile_patches([make_signal("quality")], {"train.gradient_clip": 1.0}, PatchSet(), POLICY, DAY, rules)
    assert words(found.refused) == {"model.layers": "no-lever", "train.gradient_clip": "no-bound"}


def test_the_literal_rules_can_be_written_in_yaml(make_signal: Make) -> None:
    text = """
    - {when: [latency], key: train.learning_rate, multiply: 0.9, ends: [low, high], reason: latency over its threshold}
    - {when: [quality], key: model.hidden_size, add: 16, reason: accuracy under its target}
    """
    rules = [Rule.model_validate_json(json.dumps(item)) for item in yaml.safe_load(text)]
    fired = [make_signal("latency"), make_signal("quality")]
    found = compile_patches(fired, {"train.learning_rate": 1e-3, "model.hidden_size": 64}, PatchSet(), POLICY, DAY, rules)
    assert {patch.key: patch.new for patch in found.patches} == {"train.learning_rate": 1e-3 * 0.9, "model.hidden_size": 80}


INT8 = "train.quantization"


def test_a_setting_that_is_a_word_is_set_rests_expires_and_is_undone_like_a_number(make_signal: Make, tmp_path: Path) -> None:
    base = {INT8: "none", "model.hidden_size": 256}
    first = compile_patches([make_signal("latency")], base, PatchSet(), POLICY, DAY)
    patch = next(one for one in first.patches if one.key == INT8)
    assert (patch.old, patch.new, patch.evidence["moved"]) == ("none", "int8", {"value": 1})
    active = PatchSet(patches=(patch,))
    assert apply(base, active, DAY).levers[INT8] == "int8" and undo({INT8: "int8"}, patch) == {INT8: "none"}
    assert apply(base, active, DAY + timedelta(days=8)).skipped[0].word == "expired"
    assert apply({INT8: "int8"}, active, DAY).skipped[0].word == "stale"  # the user wrote it into params.yaml since

    def said(signal: str, day: int, active: PatchSet, value: float = 0.6) -> str | None:
        later = compile_patches(
            [make_signal(signal, value=value)], base, active, POLICY, DAY + timedelta(days=day), (*RULES, back)
        )
        return words(later.refused).get(INT8)

    back = Rule(when=("quality",), key=INT8, set="none", reason="r")
    assert said("latency", 0, active) == "cooldown" and said("latency", 3, active, 0.5) == "seen"
    assert said("latency", 3, active) == "bound" and said("quality", 3, active) == "hysteresis"
    past = History(tmp_path / "patches.jsonl")
    past.append([patch])
    past.undo(1, DAY)
    assert apply(base, past.active(DAY), DAY).levers[INT8] == "none"
    assert said("latency", 3, past.active(DAY)) == "undone"


def test_int8_is_for_models_that_are_wide_or_do_not_say(make_signal: Make) -> None:
    for width, expected in (
        ({"model.hidden_size": 128}, []),
        ({"model.hidden_size": 256}, [INT8]),
        ({"model.hidden_size": None}, [INT8]),
    ):
        found = compile_patches([make_signal("latency")], {INT8: "none", **width}, PatchSet(), POLICY, DAY)
        assert [one.key for one in found.patches if one.key == INT8] == expected
        assert INT8 not in words(found.refused)


@pytest.mark.parametrize("space", [{}, {INT8: "int4"}, {f"tune.space.{INT8}": {"choice": ["none", "int8"]}, INT8: "none"}])
def test_a_word_that_is_not_there_or_not_known_or_searched_is_no_lever(space: dict[str, Any], make_signal: Make) -> None:
    found = compile_patches([make_signal("latency")], space, PatchSet(), POLICY, DAY)
    assert not found.patches and words(found.refused)[f"tune.space.{INT8}" if len(space) > 1 else INT8] == "no-lever"


def test_a_choice_gains_an_option_and_keeps_the_others(make_signal: Make) -> None:
    space = {"tune.space.model.hidden_size": {"choice": [32, 64]}}
    found = compile_patches([make_signal("quality")], space, PatchSet(), POLICY, DAY)
    assert found.patches[0].new == {"choice": [32, 64, 80]}


def test_levers_are_the_search_space_and_the_numbers_of_model_and_train() -> None:
    tree = {
        "model": {"name": "glm", "hidden_size": None, "layers": 2},
        "train": {"epochs": 3.0},
        "tune": {"space": {"a.b": {}}},
    }
    assert levers(tree) == {"tune.space.a.b": {}, "model.layers": 2, "train.epochs": 3.0}
    tree["train"] |= {"quantization": "none", "schedule": "cosine"}
    assert levers(tree)["train.quantization"] == "none" and "train.schedule" not in levers(tree)


SIGNALS = st.lists(st.sampled_from(["quality", "drift", "latency"]), unique=True, min_size=1)
WEEKS = st.lists(st.tuples(SIGNALS, st.integers(0, 3), st.floats(0, 1)), min_size=1, max_size=25)
WILD = st.builds(
    lambda key, factor, amount, sides: Rule(
        when=("quality",), key=key, multiply=factor, add=amount if factor is None else None, ends=sides, reason="wild"
    ),
    st.sampled_from(sorted(BOUNDS)),
    st.one_of(st.none(), st.floats(1e-6, 1e6)),
    st.floats(-1e6, 1e6),
    st.sampled_from([("low",), ("high",), ("low", "high")]),
)


@settings(max_examples=60, deadline=None)
@given(WEEKS, st.lists(WILD, max_size=4), st.floats(0.05, 0.9))
def test_no_history_of_signals_breaks_a_bound(weeks: list[Any], wild: list[Rule], max_step: float) -> None:
    policy = POLICY.model_copy(update={"max_step": max_step})
    today, made = DAY, []
    for names, pause, value in weeks:
        today += timedelta(days=pause)
        signals = [_signal(name, value) for name in names]
        active = _in_force(made, today)
        found = compile_patches(signals, BASE, active, policy, today, (*RULES, *wild))
        for patch in found.patches:
            _check(patch, policy)
        made += found.patches
        active = _in_force(made, today)
        assert apply(BASE, active, today).skipped == ()
        assert compile_patches(signals, BASE, active, policy, today, (*RULES, *wild)).patches == ()  # idempotent
        if found.patches:
            before = apply(BASE, PatchSet(patches=active.patches[:-1]), today).levers
            assert undo(apply(BASE, active, today).levers, active.patches[-1]) == before


def _signal(name: str, value: float) -> Signal:
    fields = {"name": name, "fired": True, "value": value, "threshold": 0.7, "low": value, "high": value, "rows": 300}
    return Signal.model_validate({**fields, "window": ("2026-01-04", "2026-01-04"), "reason": "measured"})


def _in_force(made: list[SearchSpacePatch], today: date) -> PatchSet:
    """As History.active has it: a key's patches end with its newest."""
    chains: dict[str, list[SearchSpacePatch]] = {}
    for patch in made:
        chain = chains.setdefault(patch.key, [])
        if chain and chain[-1].expires < patch.created:
            chain.clear()
        chain.append(patch)
    alive = [patch for chain in chains.values() if chain[-1].expires >= today.isoformat() for patch in chain]
    return PatchSet(patches=tuple(patch for patch in made if patch in alive))


def _check(patch: SearchSpacePatch, policy: FeedbackPolicy) -> None:
    key = patch.key.removeprefix(SPACE)
    low, high = policy.bounds[key]
    old, new, base = ends(patch.old), ends(patch.new), ends(BASE[patch.key])
    assert old != new
    for end in old:
        assert low <= new[end] <= high
        assert abs(new[end] - old[end]) <= policy.max_step * abs(old[end]) * (1 + 1e-9)
        assert base[end] / policy.max_total * (1 - 1e-9) <= new[end] <= base[end] * policy.max_total * (1 + 1e-9)
    if "value" not in new:
        assert new["low"] < new["high"]


def test_a_signal_from_the_future_moves_nothing(make_signal: Make) -> None:
    ahead = make_signal("drift").model_copy(update={"window": ("2026-01-06", "2026-01-06")})
    found = compile_patches([ahead], BASE, PatchSet(), POLICY, DAY)
    assert (found.patches, words(found.refused)) == ((), {"drift": "future"})


def test_a_lever_that_is_off_begins_at_the_rules_start_and_goes_on_from_there(make_signal: Make) -> None:
    rules = [Rule(when=("drift",), key="prepare.half_life_days", multiply=0.75, start=14, reason="r")]
    space = {"prepare.half_life_days": 0}
    first = compile_patches([make_signal("drift")], space, PatchSet(), POLICY, DAY, rules)
    assert [patch.new for patch in first.patches] == [14]
    fired, active = [make_signal("drift", value=0.4)], PatchSet(patches=first.patches)
    second = compile_patches(fired, space, active, POLICY, DAY + timedelta(days=1), rules)
    assert [patch.new for patch in second.patches] == [10.5]


def test_drift_leaves_the_half_life_to_what_the_last_days_show_unless_somebody_chose_one(make_signal: Make) -> None:
    space, fired = {"prepare.half_life_days": 0.0}, [make_signal("drift")]
    first = compile_patches(fired, space, PatchSet(), POLICY, DAY)
    assert [patch.new for patch in first.patches] == ["auto"]
    active, later = PatchSet(patches=first.patches), DAY + timedelta(days=2)
    again = compile_patches([make_signal("drift", value=0.9)], space, active, POLICY, later)
    assert (again.patches, words(again.refused)["prepare.half_life_days"]) == ((), "bound")
    assert apply(space, active, DAY + timedelta(days=POLICY.expire_days)).levers == {"prepare.half_life_days": "auto"}
    over = DAY + timedelta(days=POLICY.expire_days + 1)
    assert apply(space, active, over).levers == space
    assert [patch.new for patch in compile_patches(fired, space, active, POLICY, over).patches] == ["auto"]
    for chosen in (7.0, "auto"):
        kept = compile_patches(fired, {"prepare.half_life_days": chosen}, PatchSet(), POLICY, DAY)
        assert kept.patches == () and words(kept.refused)["prepare.half_life_days"] in ("no-lever", "bound")


def test_a_width_keeps_to_what_its_heads_allow(make_signal: Make) -> None:
    policy = POLICY.model_copy(update={"grains": {"model.hidden_size": 16}})
    slow = compile_patches([make_signal("latency")], {"model.hidden_size": 128}, PatchSet(), policy, DAY)
    assert [patch.new for patch in slow.patches] == [112]
    wide = policy.model_copy(update={"grains": {"model.hidden_size": 64}})
    assert compile_patches([make_signal("latency")], {"model.hidden_size": 128}, PatchSet(), wide, DAY).patches == ()
