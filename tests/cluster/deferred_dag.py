"""A DAG of one stage on Kubernetes, in a run that is open already ($OPENED_RUN, a RunInfo): what the scheduler and the triggerer are tried on."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from airflow.sdk import DAG, BaseOperator

from autoglm_airflow.pods import TrainOnKubernetes


class Opened(BaseOperator):
    """In the place of OpenRunOperator."""

    def execute(self, context):
        return json.loads(Path(os.environ["OPENED_RUN"]).read_text(encoding="utf-8"))


with DAG(dag_id="deferred", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), is_paused_upon_creation=False):
    Opened(task_id="open_run") >> TrainOnKubernetes(stage="train")
