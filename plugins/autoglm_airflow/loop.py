"""The tasks of the feedback loop and of promotion by hand: thin calls of the command line, and what its answers lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import SkipMixin
from airflow.sdk.exceptions import AirflowFailException, AirflowSkipException, DagRunTriggerException

from autoglm_airflow import requests
from autoglm_airflow.operators import CommandOperator, RunOperator, ToldOperator
from autoglm_ops.contracts.training import TuningReport


class DayOperator(CommandOperator):
    """`autoglm ARGUMENTS --as-of=DAY --json` for the day that the DAG run judges."""

    def work(self, context: Any, event: dict[str, Any]) -> Any:
        ended = self.command(*self.arguments, f"--as-of={requests.judged_day(context)}", "--json")
        ended.check()
        return ended.json()


class SignalsOperator(DayOperator, SkipMixin):
    """Reads the production signals. When none fired, everything downstream is skipped and the run is green."""

    def work(self, context: Any, event: dict[str, Any]) -> Any:
        answer = super().work(context, event)
        if not answer["fired"]:
            event["reason"] = answer.get("reason") or "no signal fired"
            context["ti"].xcom_push(key="return_value", value=answer)
            self.skip(context["ti"], self.get_flat_relatives(upstream=False))
        return answer


class AlertOperator(ToldOperator):
    """Succeeds, and so updates its outlet, when the task `of` answered with alerts; is skipped otherwise."""

    def __init__(self, *, of: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.of = of

    def work(self, context: Any, event: dict[str, Any]) -> Any:
        alerts = (context["ti"].xcom_pull(task_ids=self.of) or {}).get("alerts", [])
        if not alerts:
            raise AirflowSkipException("no alert")
        event["reason"] = "; ".join(f"{alert['name']}: {alert['message']}" for alert in alerts)
        return alerts


class WinnerOperator(RunOperator):
    """The best trial of the run's study, as the conf of a retraining: {as_of, set}."""

    def work(self, context: Any, event: dict[str, Any]) -> dict[str, Any]:
        info = self.info(context)
        report = TuningReport.read(Path(info.workspace) / "out" / "tune" / "report.json")
        if not report.best:
            raise AirflowFailException(f"the study found no winner: {'; '.join(report.reasons) or 'no trial was completed'}")
        event["reason"] = f"{report.objective} {report.best_value}"
        return {"as_of": info.as_of, "set": {**report.best, "tune.enabled": False}}


class RetrainOperator(ToldOperator):
    """Triggers `dag_to_trigger` with the answer of the task `of` as its conf, once per DAG run whatever is retried or cleared.

    TriggerDagRunOperator does the same, but importing it costs every parse of a DAG file half a second.
    """

    def __init__(self, *, of: str, dag_to_trigger: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.of = of
        self.dag_to_trigger = dag_to_trigger

    def work(self, context: Any, event: dict[str, Any]) -> None:
        ti = context["ti"]
        event["reason"] = f"{self.dag_to_trigger} with the winner"
        raise DagRunTriggerException(
            trigger_dag_id=self.dag_to_trigger,
            dag_run_id=f"{ti.dag_id}__{ti.run_id}",
            conf=ti.xcom_pull(task_ids=self.of),
            logical_date=None,
            reset_dag_run=False,
            skip_when_already_exists=True,
            wait_for_completion=False,
            allowed_states=[],
            failed_states=[],
            poke_interval=60,
            deferrable=False,
        )


class ReleaseOperator(CommandOperator):
    """Promotes or rolls back by hand, as the form says: `autoglm promote|rollback [--version=N]`."""

    def work(self, context: Any, event: dict[str, Any]) -> Any:
        requests.known_keys(context["dag_run"].conf or {}, list(context["params"]))
        action, version = context["params"]["action"], context["params"].get("version")
        if action == "promote" and version is None:
            raise AirflowFailException("promote needs a version: give the number of a registered version in the form")
        which = [f"--version={version}"] if version is not None else []
        ended = self.command(action, *which, f"--reason=DAG run {context['dag_run'].run_id}", "--json")
        ended.check()
        return ended.json()
