"""Looks at production every hour: drift, quality, latency. An alert wakes feedback_retune."""

from datetime import UTC, datetime

from airflow.sdk import DAG, CronTriggerTimetable, Param

from autoglm_airflow.assets import PRODUCTION
from autoglm_airflow.loop import AlertOperator, DayOperator

with DAG(
    dag_id="monitor_production",
    description="Drift and quality of what is served, against the champion at its promotion.",
    doc_md=__doc__,
    schedule=CronTriggerTimetable("@hourly", timezone="UTC"),
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["autoglm"],
    params={
        "as_of": Param(
            None, type=["null", "string"], format="date", description="The day to look at; empty is the run's own day."
        ),
    },
) as dag:
    looked = DayOperator(task_id="monitor", arguments=["monitor"])
    looked >> AlertOperator(task_id="alert", of="monitor", outlets=[PRODUCTION])
