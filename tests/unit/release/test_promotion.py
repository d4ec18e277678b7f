"""Who may be champion: every rule alone, and the ledger's arithmetic over any history."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.release import Champion, GateVerdict, ModelRef, Promotion, Verdict
from autoglm_ops.release.promotion import Candidate, champion_at, decide_promotion, earlier_champions, rolled_back


def ref(version: int) -> ModelRef:
    return ModelRef(name="autoglm", version=version, digest=f"{version:064x}")


def champion(version: int, until: str = "2026-01-05") -> Champion:
    return Champion(model=ref(version), data_until=until, content_key="k", metric=0.8)


def verdict(kind: Verdict = Verdict.PROMOTE) -> GateVerdict:
    return GateVerdict(verdict=kind, policy="p", reasons=("better: by 0.02",), evidence={})


def line(action: str, model: int | None, replaced: int | None = None, at: float = 0.0) -> Promotion:
    return Promotion.model_validate(
        {
            "action": action,
            "model": ref(model) if model else None,
            "replaced": ref(replaced) if replaced else None,
            "run": "r", "reasons": (), "actor": "a", "at": at, "previous": "",
        }
    )  # fmt: skip


NEW = Candidate(model=ref(2), data_until="2026-01-06", run="r")


def test_the_first_and_a_better_one_are_promoted_with_the_gates_reasons() -> None:
    assert decide_promotion(verdict(), NEW, now=Champion(), then=Champion()).promote
    better = decide_promotion(verdict(), NEW, now=champion(1), then=champion(1))
    assert better.promote and better.reasons == ("better: by 0.02",)


@pytest.mark.parametrize(
    ("code", "changes"),
    [
        ("gate", {"verdict": verdict(Verdict.REJECT)}),
        ("gate", {"verdict": verdict(Verdict.INSUFFICIENT)}),
        ("champion-changed", {"now": champion(3)}),
        ("champion-changed", {"now": Champion()}),
        ("champion-changed", {"then": Champion()}),
        ("older-data", {"now": champion(1, "2026-01-07")}),
        ("rolled-back", {"rolled_back": frozenset({ref(2).digest})}),
        ("off", {"enabled": False}),
    ],
)
def test_each_rule_refuses_alone_and_says_so(code: str, changes: dict) -> None:
    arguments = {"now": champion(1), "then": champion(1)} | changes
    decision = decide_promotion(arguments.pop("verdict", verdict()), NEW, **arguments)
    assert not decision.promote
    assert [reason.split(":")[0] for reason in decision.reasons] == [code]


def test_the_same_last_day_is_not_older() -> None:
    assert decide_promotion(verdict(), NEW, now=champion(1, "2026-01-06"), then=champion(1, "2026-01-06")).promote


def test_rollbacks_walk_down_and_never_up() -> None:
    lines = [line("promote", 1), line("promote", 2, 1), line("promote", 3, 2)]
    assert earlier_champions(lines) == [ref(2), ref(1)]
    lines.append(line("rollback", 2, 3))
    assert earlier_champions(lines) == [ref(1)] and rolled_back(lines) == {ref(3).digest}
    lines.append(line("rollback", 1, 2))
    assert earlier_champions(lines) == [] and rolled_back(lines) == {ref(3).digest, ref(2).digest}
    lines.append(line("promote", 3, 1))
    assert earlier_champions(lines) == [ref(1)] and rolled_back(lines) == {ref(2).digest}


def test_a_rollback_past_several_takes_all_of_them_away() -> None:
    lines = [line("promote", 1), line("promote", 2, 1), line("promote", 3, 2), line("rollback", 1, 3)]
    assert earlier_champions(lines) == []


def test_a_move_by_hand_is_rolled_back_like_any_other() -> None:
    lines = [line("promote", 1), line("promote", 2, 1), line("observed", 1, 2)]
    assert earlier_champions(lines) == [ref(2)]
    assert earlier_champions([*lines, line("rollback", 2, 1)]) == [ref(1)]
    assert earlier_champions([line("promote", 1), line("observed", None, 1)]) == [ref(1)]


def test_champion_at_answers_between_the_lines() -> None:
    lines = [line("promote", 1, at=10), line("promote", 2, 1, at=20), line("observed", None, 2, at=30)]
    assert [champion_at(lines, at) for at in (9, 10, 19.9, 20, 30)] == [None, ref(1), ref(1), ref(2), None]


@given(st.lists(st.one_of(st.just("rollback"), st.integers(1, 4)), max_size=30))
def test_any_history_of_moves_stays_consistent(moves: list) -> None:
    lines: list[Promotion] = []
    current: int | None = None
    for move in moves:
        if move == "rollback":
            below = earlier_champions(lines)
            if not below:
                continue
            lines.append(line("rollback", below[0].version, current))
            current = below[0].version
        elif move != current:
            lines.append(line("promote", move, current))
            current = move
        assert all(model != ref(current) for model in earlier_champions(lines)[:1])
        assert champion_at(lines, 1) == (ref(current) if current else None)
    promotions = sum(item.action == "promote" for item in lines)
    for _ in range(promotions):  # each rollback takes at least one promotion away, so they end
        if below := earlier_champions(lines):
            lines.append(line("rollback", below[0].version, lines[-1].model.version))
    assert not earlier_champions(lines)
