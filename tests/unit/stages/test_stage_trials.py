"""The hard stop of a study whose looks others take: `ask` and the stage fail as one process would, and keep what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from train_workspace import workspace

from autoglm_ops.contracts.record import Completion
from autoglm_ops.errors import BudgetSpent
from autoglm_ops.stages import runner, trials, trials_away
from autoglm_ops.stages.base import Context
from autoglm_ops.stages.desk import Desk, Told
from autoglm_ops.stages.runner import run_stage
from autoglm_ops.tuning.rounds import Look

TUNE: dict[str, Any] = {"trials": 4, "steps": 12, "parallel": 2, "looks": 1, "strategy": "random"}


def prepared(root: Path, **changes: Any) -> Path:
    workspace(root, tune={**TUNE, **changes})
    run_stage("plan", root)
    return root


def told(desk: Desk, looks: Sequence[Look], seconds: float) -> None:
    """As if somebody had trained them for so long."""
    for look in looks:
        desk.tell(Told(look=look, score=0.5, measured={"seconds": seconds}))


def desk_of(root: Path) -> Desk:
    return Desk(runner.context_of("tune", root).scratch / "looks")


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ({}, "tuning took 400 s of all trials together and tune.seconds is 240, in trial 1 of 4 at step 12"),
        (
            {"seconds": 1e6, "budget": {"cost": 1.0, "hourly": 10}},
            "tuning cost 1.11 and tune.budget.cost is 1, in trial 1 of 4",
        ),
    ],
)
def test_a_round_that_took_too_long_ends_the_study_with_its_record(limit: dict[str, Any], said: str, tmp_path: Path) -> None:
    root = prepared(tmp_path / "w", **limit)
    told(desk_of(root), trials.ask(root), 200)
    with pytest.raises(BudgetSpent, match=said):
        trials.ask(root)
    record = Completion.read(runner.completion_path(root, "tune"))
    assert (record.stage, record.exit, record.attempt, record.outputs) == ("tune", 3, 1, {})
    assert said in record.reasons[0] and set(record.inputs) >= {"out/plan", "inputs/patches.json"}
    rest = trials.ask(root)
    assert [look.number for look in rest] == [2, 3]  # the next attempt goes on, with what was measured
    told(desk_of(root), rest, 1)
    assert trials.over(root)
    run_stage("tune", root)
    assert runner.require("tune", root).attempt == 2


def test_what_half_a_round_took_counts_before_the_rest_of_it_is_begun(tmp_path: Path) -> None:
    root = prepared(tmp_path / "w")
    looks = trials.ask(root)
    told(desk_of(root), looks[:1], 300)
    with pytest.raises(BudgetSpent, match="tuning took 300 s"):
        trials.ask(root)
    assert trials.ask(root) == looks[1:]


def test_the_stage_counts_what_its_trials_took_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, sent = prepared(tmp_path / "w"), list[Look]()

    def fetch(context: Context, desk: Desk, restarts: int, looks: Sequence[Look]) -> None:
        missing = [look for look in looks if desk.told(look) is None]
        sent.extend(missing)
        told(desk, missing, 200)

    monkeypatch.setattr(trials_away, "leave", lambda settings: True)
    monkeypatch.setattr(trials_away, "fetch", fetch)
    for attempt in (1, 2):
        with pytest.raises(BudgetSpent, match=r"tuning took 4\d\d s"):  # with what this process did
            run_stage("tune", root)
        record = Completion.read(runner.completion_path(root, "tune"))
        assert (record.exit, record.attempt) == (3, attempt)
        assert len(sent) == 2 * attempt, "one round an attempt"
    assert run_stage("tune", root).facts["trials"] == 4 and len(sent) == 4
