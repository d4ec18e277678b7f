"""Moves the champion by hand: promotes a registered version, or rolls back, after a person's approval."""

from datetime import UTC, datetime

from airflow.sdk import DAG, Param, TriggerRule

from autoglm_airflow.approval import Approval
from autoglm_airflow.assets import MODEL
from autoglm_airflow.loop import ReleaseOperator

with DAG(
    dag_id="promote_model",
    description="Promote a version or roll back, with approval.",
    doc_md=__doc__,
    schedule=None,
    start_date=datetime(2020, 1, 1, tzinfo=UTC),
    catchup=False,
    max_active_runs=1,
    is_paused_upon_creation=False,
    tags=["autoglm"],
    params={
        "action": Param("promote", type="string", enum=["promote", "rollback"], description="What to do with the champion."),
        "version": Param(
            None,
            type=["null", "integer"],
            minimum=1,
            description="A registered version; a rollback without one takes the last.",
        ),
        "approval": Param(True, type="boolean", description="Wait for a person's approval first."),
    },
) as dag:
    approved = Approval(
        task_id="approval",
        subject="{{ params.action }} {{ params.version or 'to the champion before' }}?",
        body="Asked for by {{ dag_run.run_id }}. The ledger records who and why.",
    )
    approved >> ReleaseOperator(task_id="release", trigger_rule=TriggerRule.NONE_FAILED, outlets=[MODEL])
