"""A stage in a pod of Kubernetes, by Airflow's own KubernetesPodOperator. Imported only where `cluster.backend` is kubernetes."""

from __future__ import annotations

import os
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.sdk.exceptions import AirflowException
from kubernetes.client.exceptions import ApiException

from autoglm_airflow.operators import StageOperator, record_of
from autoglm_ops.cluster.pod import CONTAINER
from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.contracts.record import Completion


class TrainOnKubernetes(StageOperator, KubernetesPodOperator):
    """Sends the stage's inputs to the store, runs its pod, and believes the record in the store, never the pod's phase (apache/airflow #73006).

    durable: after a restart of worker or scheduler the pod is found again. deferrable (Airflow's `[operators] default_deferrable`): no
    worker waits for it. A stage that needs no pod of its own (cached, done, or several pods) runs as `StageOperator` runs it. Nothing
    of it is a template (threats F27, F28).
    """

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        kwargs = {"durable": True, "random_name_suffix": False, "on_finish_action": "delete_pod", **kwargs}
        super().__init__(
            stage=stage, base_container_name=CONTAINER, config_file=os.environ.get("KUBECONFIG"), startup_timeout_seconds=600,
            log_events_on_failure=True, do_xcom_push=False, termination_message_policy="FallbackToLogsOnError", **kwargs,
        )  # fmt: skip

    def execute(self, context: Any) -> Any:
        info = self.info(context)
        sent = self.command("runs", "send", info.run, self.stage)
        sent.check()
        posted = sent.json()
        if posted["pod"] is None:
            return StageOperator.execute(self, context)
        self.full_pod_spec = PodGenerator.deserialize_model_dict(posted["pod"])
        self.cluster_context = posted["context"]
        self._pod_said(lambda: KubernetesPodOperator.execute(self, context))
        return self._taken(context)

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> Any:
        """Where the trigger wakes this task: the pod has ended, somehow."""
        self._pod_said(lambda: KubernetesPodOperator.trigger_reentry(self, context, event))
        return self._taken(context)

    def on_kill(self) -> None:
        StageOperator.on_kill(self)
        KubernetesPodOperator.on_kill(self)

    def _pod_said(self, act: Any) -> None:
        """What the pod's phase says is told and no more: the record decides."""
        try:
            act()
        except (AirflowException, ApiException) as error:
            self.log.warning("the pod: %s", error)
            self._said = str(error)

    def _taken(self, context: Any) -> Any:
        self._words = ("take", f"--said={self._said[:1000]}")
        return StageOperator.execute(self, context)

    _words: tuple[str, ...] = ("exec",)
    _said = ""

    def run_stage(self, info: RunInfo) -> Completion:
        verb, *more = self._words
        return record_of(self.command("runs", verb, info.run, self.stage, *more), info, self.stage)
