"""Closes the loop: production signals change what the next study may search, and its winner is retrained by daily_retrain."""

from datetime import UTC, datetime

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, Param, TriggerRule

from autoglm_airflow.assets import PRODUCTION
from autoglm_airflow.loop import DayOperator, RetrainOperator, SignalsOperator, WinnerOperator
from autoglm_airflow.operators import CloseRunOperator, OpenRunOperator
from autoglm_airflow.pipeline import pipeline

with DAG(
    dag_id="feedback_retune",
    description="Collect feedback, measure drift, read the signals, patch the search space, study, and retrain with the winner.",
    doc_md=__doc__,
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("@hourly", timezone="UTC"), assets=[PRODUCTION]),
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["autoglm"],
    params={
        "as_of": Param(
            None, type=["null", "string"], format="date", description="The day to judge; empty is the run's own day."
        ),
        "set": Param({}, type="object", description='Settings of the study over params.yaml, e.g. {"tune.steps": 50}.'),
    },
) as dag:
    collected = DayOperator(task_id="collect", arguments=["feedback", "collect"])
    drifted = DayOperator(task_id="drift", arguments=["feedback", "drift"])
    signals = SignalsOperator(task_id="signals", arguments=["feedback", "signals"])
    patched = DayOperator(task_id="patch", arguments=["feedback", "patch"])
    opened = OpenRunOperator(task_id="open_run", fixed={"tune.enabled": True}, promote=False)
    collected >> drifted >> signals >> patched >> opened
    studied = pipeline(opened, "ingest validate prepare tokenize plan tune")
    winner = WinnerOperator(task_id="winner")
    retrain = RetrainOperator(task_id="retrain", of="winner", dag_to_trigger="daily_retrain")
    studied >> winner >> retrain >> CloseRunOperator(task_id="close_run", trigger_rule=TriggerRule.NONE_FAILED)
