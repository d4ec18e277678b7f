"""Builds a dataset from raw text when new text arrives: shards are read, matched and written as mapped tasks; the dataset asset starts daily_retrain."""

from datetime import UTC, datetime

from airflow.sdk import DAG, Param

from autoglm_airflow.assets import DATASET
from autoglm_airflow.datasets import BuildTaskOperator, NumbersOperator, PlanBuildOperator, over
from autoglm_airflow.watch import RAW

with DAG(
    dag_id="dataset_build",
    description="Read, clean, deduplicate, cap, mix and version raw text; every document accounted for.",
    doc_md=__doc__,
    schedule=[RAW],
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["autoglm"],
    params={
        "location": Param(
            None,
            type=["null", "string"],
            minLength=1,
            maxLength=1000,
            description="A path, s3://bucket/prefix or https://host/file. Empty: flow.location of params.yaml.",
        ),
        "set": Param({}, type="object", description='Settings over params.yaml, e.g. {"flow.source_cap": 10000}.'),
    },
) as dag:
    plan = PlanBuildOperator(task_id="plan")
    shards = NumbersOperator(task_id="shards", phase="read")
    ranges = NumbersOperator(task_id="ranges", phase="match")
    settle, finish = BuildTaskOperator(phase="settle"), BuildTaskOperator(phase="finish", outlets=[DATASET])
    seen = plan >> shards >> over("read", shards) >> ranges
    left = seen >> over("match", ranges) >> over("verify", shards) >> settle
    left >> over("weigh", shards) >> over("write", shards) >> finish
