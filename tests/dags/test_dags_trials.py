"""Rounds of a study as mapped tasks: laid out by params.yaml, skipped when the study is over, and none where trials train one by one."""

from __future__ import annotations

import json
import runpy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowException
from test_dags_operators import opened

from autoglm_airflow import requests
from autoglm_airflow.command import ALONE
from autoglm_airflow.trials import AskOperator, TrialOperator, planned

ROOT = Path(__file__).parents[2]
LOOK = {"number": 1, "choices": {"train.learning_rate": 0.01}, "since": 0, "to": 10}


def test_a_study_of_rounds_is_laid_out_before_tune(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM__TUNE__PARALLEL", "8")
    dag = runpy.run_path(str(ROOT / "dags" / "daily_retrain.py"))["dag"]
    names = [task.task_id for task in dag.topological_sort()]
    row = names[names.index("plan") + 1 : names.index("train")]
    assert row == [*(f"{kind}_{number}" for number in range(1, 7) for kind in ("ask", "trials")), "tune"]
    assert dag.get_task("trials_2").is_mapped and dag.get_task("trials_2").max_active_tis_per_dagrun == 8
    assert dag.get_task("ask_1").upstream_task_ids == {"plan"}
    assert dag.get_task("tune").upstream_task_ids == {"trials_6"}
    assert str(dag.get_task("tune").trigger_rule.value) == "none_failed"


@pytest.mark.parametrize(
    ("tune", "rounds"),
    [({"parallel": 4}, 9), ({"parallel": 4, "strategy": "random"}, 3), ({"parallel": 2, "strategy": "tunemaster"}, 24)],
)
def test_as_many_rounds_as_the_study_can_take(tune: dict[str, Any], rounds: int) -> None:
    assert planned({"trials": 8, "looks": 3, **tune}) == rounds


def test_ask_pushes_the_trials_and_asks_no_more_once_it_is_over(world: Any, pulled: Callable[..., Any]) -> None:
    world.plan(rounds=[[LOOK]])
    context = opened(world, pulled)
    assert [json.loads(text) for text in AskOperator(task_id="ask_1").work(context, {})] == [LOOK]
    assert AskOperator(task_id="ask_2", after="ask_1").work(context, {}) == []
    assert len(world.calls("trial", "ask")) == 1  # ask_1 pushed nothing into this context


def test_who_drives_one_task_at_a_time_says_so(world: Any, pulled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    world.plan(rounds=[[]])
    monkeypatch.setenv(ALONE, "1")
    event: dict[str, Any] = {}
    assert AskOperator(task_id="ask_1").work(opened(world, pulled), event) == []
    assert "`tune` sends its rounds away" in event["reason"]
    assert world.calls("trial", "ask")[0][-1] == "--alone"


def test_a_worker_that_dies_to_the_end_is_left_to_the_next_round(world: Any, pulled: Callable[..., Any]) -> None:
    world.plan(trial_exit=137)
    context = opened(world, pulled)
    operator = TrialOperator(task_id="trials_1", look=json.dumps(LOOK))
    with pytest.raises(AirflowException, match="SIGKILL"):
        operator.work(context, {})
    context["ti"].try_number = context["ti"].max_tries + 1
    event: dict[str, Any] = {}
    assert operator.work(context, event) is None
    assert event["reason"].startswith("left to the next round")
    world.plan(trial_exit=0)
    assert operator.work(context, event) == 0.5


def test_a_team_has_a_pool_of_its_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(tmp_path))
    assert requests.pool() == {}
    (tmp_path / "params.yaml").write_text("cluster: {slots: 4, team: vision, teams: {vision: {slots: 2}}}\n")
    assert (requests.pool(), requests.team_slots()) == ({"pool": "autoglm-vision"}, ("vision", 2))
