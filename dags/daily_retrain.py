"""Retrains every day, when new data is announced, and when feedback_retune asks; promotes only on evidence."""

from datetime import UTC, datetime

from airflow.sdk import DAG, AssetOrTimeSchedule, CronTriggerTimetable, Param

from autoglm_airflow.approval import RunApproval
from autoglm_airflow.assets import DATASET
from autoglm_airflow.operators import OpenRunOperator
from autoglm_airflow.pipeline import pipeline

with DAG(
    dag_id="daily_retrain",
    description="Validate, version, tune, train, evaluate against the champion, gate, register, promote, report.",
    doc_md=__doc__,
    schedule=AssetOrTimeSchedule(timetable=CronTriggerTimetable("@daily", timezone="UTC"), assets=[DATASET]),
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["autoglm"],
    params={
        "as_of": Param(
            None, type=["null", "string"], format="date", description="Last day of data to see; empty is the run's own day."
        ),
        "set": Param({}, type="object", description='Settings over params.yaml, e.g. {"train.epochs": 1}.'),
        "tune": Param(None, type=["null", "boolean"], description="Search settings first; empty is as in params.yaml."),
        "promote": Param(
            None, type=["null", "boolean"], description="May the champion move? Empty: as in params.yaml; never in a backfill."
        ),
    },
) as dag:
    opened = OpenRunOperator(task_id="open_run")
    registered = pipeline(opened, "ingest validate prepare tokenize plan tune train evaluate gate track register")
    approved = registered >> RunApproval(
        task_id="approval",
        subject="Promote the model of {{ ti.xcom_pull(task_ids='open_run')['run'] }}?",
        body="The gate says promote. Its reasons are in the run's report; a rejection registers the model and leaves the champion.",
    )
    pipeline(approved, "promote deploy report summary")
