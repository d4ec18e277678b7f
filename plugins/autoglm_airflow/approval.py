"""A person's word before the champion moves. Asked only where it is wanted; a rejection skips what comes next."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk.exceptions import AirflowSkipException

from autoglm_airflow import requests
from autoglm_airflow.events import told
from autoglm_airflow.notify import owner_of_failure
from autoglm_airflow.operators import no_promotion
from autoglm_ops.contracts.inputs import RunInfo


class Approval(ApprovalOperator):
    """Waits for Approve or Reject in Airflow's Required Actions (UI or REST), when the `approval` param of the DAG run is true.

    An answer given within a second or two of the question can reach Airflow's scheduler before it has noticed that the asking
    process ended; it then takes the resumed task for one killed from outside and fails it (Airflow 3.3,
    process_executor_events). So it asks again, at most twice.
    """

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(on_failure_callback=owner_of_failure, retries=2, retry_delay=timedelta(seconds=5), **kwargs)

    def execute(self, context: Any) -> Any:
        with told(context):
            self.check(context)
            return super().execute(context)

    def check(self, context: Any) -> None:
        """Raises AirflowSkipException when nobody need be asked."""
        if not context["params"].get("approval"):
            raise AirflowSkipException("approval: not asked for by this DAG run")


class RunApproval(Approval):
    """The same for a run's own promotion: asked when release.approval is true and the gate says promote."""

    def __init__(self, *, opened_by: str = "open_run", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.opened_by = opened_by

    def check(self, context: Any) -> None:
        info = RunInfo.model_validate(context["ti"].xcom_pull(task_ids=self.opened_by))
        workspace = Path(info.workspace)
        if not requests.release_settings(workspace).get("approval", False):
            raise AirflowSkipException("release.approval is false: nobody is asked")
        no_promotion(workspace)
