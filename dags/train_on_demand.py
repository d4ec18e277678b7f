"""Trains with the settings of a form, through the same stages, and never moves the champion."""

from datetime import UTC, datetime

from airflow.sdk import DAG, Param

from autoglm_airflow.operators import OpenRunOperator
from autoglm_airflow.pipeline import pipeline


def field(about: str, *types: str, **rules: object) -> Param:
    """A field of the form; left empty, params.yaml decides."""
    return Param(None, type=["null", *types], description=f"{about} Empty: as in params.yaml.", **rules)


SETTINGS = {
    "model": "model.name",
    "data_path": "data.path",
    "epochs": "train.epochs",
    "learning_rate": "train.learning_rate",
    "batch_size": "train.batch_size",
    "max_length": "tokenize.max_length",
    "trials": "tune.trials",
    "precision": "train.precision",
    "quantization": "train.quantization",
    "gpus": "cluster.resources.gpus",
    "gpu_kind": "cluster.resources.gpu",
}
GPUS = ["a100-40g", "a100-80g", "h100-80g", "h200-141g", "l40s", "4090"]

with DAG(
    dag_id="train_on_demand",
    description="The same stages with the settings of a form; registers, never promotes.",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["autoglm"],
    params={
        "model": field(
            "A built-in configuration, or the path of a Hugging Face sequence classifier.", "string", minLength=1, maxLength=500
        ),
        "data_path": field("A JSONL, CSV or Parquet file, or a folder of them.", "string", minLength=1, maxLength=1000),
        "epochs": field("Times over the training rows.", "number", exclusiveMinimum=0, maximum=1000),
        "learning_rate": field("Highest learning rate.", "number", exclusiveMinimum=0, maximum=1),
        "batch_size": field("Rows per optimiser step, over all ranks.", "integer", minimum=1, maximum=1_048_576),
        "max_length": field("Tokens per row.", "integer", minimum=8, maximum=8192),
        "tune": field("Search settings first.", "boolean"),
        "trials": field("Trials of the search.", "integer", minimum=1, maximum=10_000),
        "precision": field(
            "Arithmetic of the training; fp16 needs GPUs.", "string", enum=[None, "auto", "fp32", "bf16", "fp16"]
        ),
        "quantization": field("What is published and served.", "string", enum=[None, "none", "int8"]),
        "gpus": field("GPUs of each node that trains, where cluster.backend has them.", "integer", minimum=0, maximum=64),
        "gpu_kind": field("Their kind on a cluster, which the plan is made for.", "string", enum=[None, *GPUS]),
        "as_of": Param(None, type=["null", "string"], format="date", description="Last day of data to see; empty is today."),
        "set": Param({}, type="object", description='Any other setting, e.g. {"model.layers": 4}.'),
    },
) as dag:
    opened = OpenRunOperator(task_id="open_run", settings=SETTINGS, promote=False)
    pipeline(opened, "ingest validate prepare tokenize plan tune train evaluate gate track register report summary")
