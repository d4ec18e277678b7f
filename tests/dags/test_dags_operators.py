"""Exit codes, records and verdicts, with real children of a command line that keeps the contract."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import (
    AirflowException,
    AirflowFailException,
    AirflowSkipException,
    DownstreamTasksSkipped,
    TaskAwaitingInput,
)
from hypothesis import given
from hypothesis import strategies as st

from autoglm_airflow import notify, requests
from autoglm_airflow.command import INTERRUPTED, Ended
from autoglm_airflow.events import told
from autoglm_airflow.links import MLflowLink, ReportLink
from autoglm_airflow.loop import AlertOperator, DayOperator, ReleaseOperator, SignalsOperator, WinnerOperator
from autoglm_airflow.operators import OpenRunOperator, StageOperator, SummaryOperator


def opened(world: Any, context: Callable[..., Any], **more: Any) -> dict[str, Any]:
    """A context in which `open_run` has opened a run."""
    info = OpenRunOperator(task_id="open_run").work(context(), {})
    return context({"open_run": info}, **more)


def outcome(work: Callable[[], Any]) -> type[BaseException] | None:
    try:
        work()
    except BaseException as error:
        return type(error)
    return None


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        (0, None),
        (1, AirflowFailException),
        (2, AirflowFailException),
        (3, AirflowFailException),
        (75, AirflowException),
        (137, AirflowException),
    ],
)
def test_exit_codes(world: Any, pulled: Any, code: int, raised: type[BaseException] | None):
    world.plan(exits={"train": [code]})
    context = opened(world, pulled)
    assert outcome(lambda: StageOperator(stage="train").work(context, {})) is raised


def test_the_reason_is_the_records(world: Any, pulled: Any):
    world.plan(exits={"validate": [3]})
    context = opened(world, pulled)
    with pytest.raises(AirflowFailException, match="exit 3: validate was told to end with 3"):
        StageOperator(stage="validate").work(context, {})


def test_without_a_record_the_reason_is_the_last_log_line(world: Any, pulled: Any):
    world.plan(exits={"validate": [2]}, silent=["validate"])
    context = opened(world, pulled)
    with pytest.raises(AirflowFailException, match="exit 2: validate says hello"):
        StageOperator(stage="validate").work(context, {})


def test_exit_0_without_a_record_is_not_success_and_is_tried_again(world: Any, pulled: Any):
    world.plan(silent=["train"])
    context = opened(world, pulled)
    with pytest.raises(AirflowException, match="missing") as error:
        StageOperator(stage="train").work(context, {})
    assert not isinstance(error.value, AirflowFailException)


def test_the_record_of_an_earlier_failure_is_not_success_either(world: Any, pulled: Any):
    world.plan(exits={"train": [75]})
    context = opened(world, pulled)
    assert outcome(lambda: StageOperator(stage="train").work(context, {})) is AirflowException
    world.plan(silent=["train"])
    with pytest.raises(AirflowException, match="exit 75"):
        StageOperator(stage="train").work(context, {})


def test_a_torn_record_is_not_success(world: Any, pulled: Any):
    context = opened(world, pulled)
    path = Path(context["ti"].xcom_pull("open_run")["workspace"]) / "completed" / "train.json"
    path.parent.mkdir(parents=True)
    path.write_text('{"stage": "tr')
    world.plan(silent=["train"])
    assert outcome(lambda: StageOperator(stage="train").work(context, {})) is AirflowException


def test_a_stage_pushes_little_and_tells_whether_it_was_cached(world: Any, pulled: Any):
    context, event = opened(world, pulled), dict[str, Any]()
    assert StageOperator(stage="train").work(context, event) == {"stage": "train", "seconds": 0.1, "cached": False}
    StageOperator(stage="train").work(context, event)
    assert event["cached"] is True


@pytest.mark.parametrize(
    ("verdict", "raised"),
    [("promote", None), ("reject", AirflowSkipException), ("insufficient-evidence", AirflowSkipException)],
)
def test_promote_runs_only_on_a_yes(world: Any, pulled: Any, verdict: str, raised: type[BaseException] | None):
    world.plan(verdict=verdict)
    context = opened(world, pulled)
    assert outcome(lambda: StageOperator(stage="promote").work(context, {})) is raised
    assert world.stages() == ([] if raised else ["promote"])


def test_promote_is_skipped_where_the_run_may_not(world: Any, pulled: Any):
    info = OpenRunOperator(task_id="open_run", promote=False).work(pulled(), {})
    with pytest.raises(AirflowSkipException, match=r"release\.promote"):
        StageOperator(stage="promote").work(pulled({"open_run": info}), {})


def test_a_promotion_that_the_command_declined_is_a_skip(world: Any, pulled: Any):
    world.plan(facts={"promote": {"promoted": False}})
    context = opened(world, pulled)
    assert outcome(lambda: StageOperator(stage="promote").work(context, {})) is AirflowSkipException


def test_summary_closes_the_run(world: Any, pulled: Any):
    context = opened(world, pulled)
    SummaryOperator().work(context, {})
    assert world.stages() == ["summary"]
    assert len(world.calls("runs", "close")) == 1


@pytest.mark.parametrize("decision", ["finished", "champion"])
def test_a_run_with_nothing_to_do_skips_what_follows(world: Any, pulled: Any, dags: Any, decision: str):
    world.plan(decision=decision)
    context = pulled()
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        dags["daily_retrain"].get_task("open_run").work(context, {})
    assert set(skipped.value.tasks) == set(dags["daily_retrain"].task_ids) - {"open_run"}
    assert context["ti"].xcom_pull("return_value")["decision"] == decision


def test_a_kill_that_comes_before_the_child_is_not_lost(world: Any, pulled: Any):
    context, operator = opened(world, pulled), StageOperator(stage="train")
    operator.on_kill()
    try:
        with pytest.raises(AirflowException, match="before it began"):
            operator.work(context, {})
    finally:
        INTERRUPTED.clear()


@pytest.mark.parametrize("delay", [0.0, 0.5])
def test_on_kill_ends_the_child_and_the_attempt_is_repeated(world: Any, pulled: Any, delay: float):
    world.plan(sleep={"train": 60})
    context, operator = opened(world, pulled), StageOperator(stage="train")
    threading.Timer(delay, operator.on_kill).start()
    started = time.monotonic()
    try:
        with pytest.raises(AirflowException, match=r"SIGTERM|before it began"):
            operator.work(context, {})
    finally:
        INTERRUPTED.clear()
    assert time.monotonic() - started < 50  # it would have slept for 60


def test_a_broken_answer_is_a_failure_not_a_retry():
    with pytest.raises(AirflowFailException, match="not JSON"):
        Ended(0, "all fine", "").json()


# --- what a DAG run asks for


def test_the_day_is_asked_for_or_that_of_the_logical_date_or_that_of_the_start(pulled: Any):
    assert requests.day_of(pulled(params={"as_of": "2026-01-09"})) == "2026-01-09"
    assert requests.day_of(pulled()) == "2026-01-02"
    assert requests.day_of(pulled(logical_date=None)) == "2026-01-03"


def test_the_hourly_run_at_midnight_closes_the_day_before(pulled: Any):
    context = pulled(logical_date=datetime(2026, 1, 3, 0, tzinfo=UTC))
    assert requests.judged_day(context) == "2026-01-03", "whoever starts it by hand means the day it is"
    context["dag_run"].run_type = "scheduled"
    assert requests.judged_day(context) == "2026-01-02"
    assert requests.judged_day({**context, "logical_date": datetime(2026, 1, 3, 1, tzinfo=UTC)}) == "2026-01-03"
    assert requests.judged_day({**context, "params": {"as_of": "2026-01-09"}}) == "2026-01-09"


def test_set_wins_over_the_form_and_tune_over_both(pulled: Any):
    params = {"epochs": 2, "model": None, "set": {"train.epochs": 3, "seed": 1}, "tune": False}
    request = requests.of(
        pulled(params=params), {"epochs": "train.epochs", "model": "model.name"}, {"seed": 9, "tune.enabled": True}, False
    )
    assert request.overrides == {"train.epochs": 3, "seed": 1, "tune.enabled": False}
    assert "--no-promote" in request.arguments()


@pytest.mark.parametrize(
    ("asked", "run_type", "default", "may"),
    [
        (None, "manual", None, None),
        (None, "backfill", None, False),
        (True, "backfill", None, True),
        (False, "manual", None, False),
        (None, "scheduled", False, False),
    ],
)
def test_a_backfill_promotes_only_when_asked(pulled: Any, asked: Any, run_type: str, default: Any, may: Any):
    context = pulled(params={"promote": asked})
    context["dag_run"].run_type = run_type
    assert requests.of(context, {}, {}, default).promote is may


def test_an_unknown_parameter_names_the_nearest(pulled: Any):
    context = pulled()
    context["dag_run"].conf = {"as_off": "2026-01-01"}
    with pytest.raises(AirflowFailException, match="did you mean 'as_of'"):
        requests.of(context, {}, {}, None)


@given(
    st.dictionaries(st.text(min_size=1), st.text() | st.integers() | st.booleans() | st.none(), max_size=4),
    st.text(),
    st.text(),
)
def test_nothing_in_a_conf_becomes_an_option_of_its_own(overrides: dict[str, Any], as_of: str, run_id: str):
    arguments = requests.Request("d", run_id, as_of, overrides).arguments()
    assert len(arguments) == 3 + len(overrides)
    assert all(argument.startswith(("--dag=", "--dag-run-id=", "--as-of=", "--set=")) for argument in arguments)
    sets = [argument.removeprefix("--set=") for argument in arguments if argument.startswith("--set=")]
    assert sorted(sets) == sorted(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in overrides.items())


# --- the loop


def test_no_signal_skips_what_follows(world: Any, pulled: Any, dags: Any):
    world.plan(fired=False)
    with pytest.raises(DownstreamTasksSkipped) as skipped:
        dags["feedback_retune"].get_task("signals").work(pulled(), {})
    assert "retrain" in skipped.value.tasks
    world.plan(fired=True)
    assert SignalsOperator(task_id="s", arguments=["feedback", "signals"]).work(pulled(), {}) == {"fired": True}


def test_a_day_operator_gives_the_day(world: Any, pulled: Any):
    DayOperator(task_id="monitor", arguments=["monitor"]).work(pulled(), {})
    assert world.calls("monitor") == [["monitor", "--as-of=2026-01-02", "--json"]]


def test_the_winner_becomes_a_conf(world: Any, pulled: Any):
    context = opened(world, pulled)
    answer = WinnerOperator(task_id="winner").work(context, {})
    assert answer == {"as_of": "2026-01-02", "set": {"train.learning_rate": 0.002, "tune.enabled": False}}


def test_a_study_without_a_winner_fails(world: Any, pulled: Any):
    world.plan(best={})
    context = opened(world, pulled)
    with pytest.raises(AirflowFailException, match="no winner"):
        WinnerOperator(task_id="winner").work(context, {})


def test_an_alert_is_told_and_no_alert_is_a_skip(pulled: Any, world: Any):
    operator = AlertOperator(task_id="alert", of="monitor")
    alert = {"name": "drift", "message": "psi 0.4 over 0.2"}
    assert operator.work(pulled({"monitor": {"alerts": [alert]}}), event := {}) == [alert]
    assert event["reason"] == "drift: psi 0.4 over 0.2"
    assert outcome(lambda: operator.work(pulled({"monitor": {"alerts": []}}), {})) is AirflowSkipException


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"action": "promote", "version": 3}, ["promote", "--version=3"]),
        ({"action": "rollback", "version": None}, ["rollback"]),
        ({"action": "rollback", "version": 2}, ["rollback", "--version=2"]),
    ],
)
def test_release_by_hand(world: Any, pulled: Any, params: dict[str, Any], words: list[str]):
    ReleaseOperator(task_id="release").work(pulled(params=params), {})
    assert world.calls(words[0]) == [[*words, "--reason=DAG run manual__1", "--json"]]


def test_a_promotion_by_hand_needs_a_version(world: Any, pulled: Any):
    with pytest.raises(AirflowFailException, match="needs a version"):
        ReleaseOperator(task_id="release").work(pulled(params={"action": "promote", "version": None}), {})


# --- telling


def test_the_owner_is_told_once_per_dag_run(world: Any, pulled: Any):
    for task in ("train", "train", "report"):
        context = pulled(exception=AirflowFailException("exit 3: bad data"))
        context["ti"].task_id = task
        notify.owner_of_failure(context)
    other = pulled(exception=None)
    other["ti"].run_id = "manual__2"
    notify.owner_of_failure(other)
    notices = world.lines("notices.jsonl")
    assert [(notice["run"], notice["task"], notice["reason"], notice["log"]) for notice in notices] == [
        ("manual__1", "train", "exit 3: bad data", "http://log"),
        ("manual__2", "t", "the task was ended from outside", "http://log"),
    ]


def test_a_torn_line_among_the_notices_loses_none(world: Any, tmp_path: Path):
    path = tmp_path / "notices.jsonl"
    path.write_text('{"dag": "d", "ru')
    assert notify.append_once(path, {"dag": "d", "run": "r"})
    assert not notify.append_once(path, {"dag": "d", "run": "r"})
    assert json.loads(path.read_text().splitlines()[-1]) == {"dag": "d", "run": "r"}


@pytest.mark.parametrize(
    ("error", "state"),
    [
        (None, "success"),
        (AirflowSkipException("no"), "skipped"),
        (AirflowFailException("no"), "failed"),
        (AirflowException("later"), "up_for_retry"),
        (DownstreamTasksSkipped(tasks=[]), "success"),
        (TaskAwaitingInput(method_name="m"), "awaiting_input"),
    ],
)
def test_events(world: Any, pulled: Any, error: BaseException | None, state: str):
    def run() -> None:
        with told(pulled()) as event:
            event["cached"] = True
            if error:
                raise error

    assert outcome(run) is (type(error) if error else None)
    first, last = world.lines("events.jsonl")
    assert set(first) == set(last) == {"task", "state", "seconds", "dag", "run", "reason", "cached"}
    assert (first["state"], last["state"]) == ("running", state)
    assert last["reason"] == ("" if state in ("success", "awaiting_input") else str(error))


def test_links_lead_to_what_is_there(world: Any):
    operator, key = SimpleNamespace(opened_run="abc"), SimpleNamespace()
    assert ReportLink().get_link(operator, ti_key=key) == MLflowLink().get_link(operator, ti_key=key) == ""
    root = world.home / "runs" / "abc"
    for name, text in {
        "out/report/report.html": "<html>",
        "completed/track.json": '{"facts": {"mlflow_run": "r", "mlflow_experiment": "1"}}',
    }.items():
        (root / name).parent.mkdir(parents=True)
        (root / name).write_text(text)
    assert ReportLink().get_link(operator, ti_key=key) == "/autoglm/runs/abc/report"
    assert MLflowLink().get_link(operator, ti_key=key).endswith("/#/experiments/1/runs/r")
