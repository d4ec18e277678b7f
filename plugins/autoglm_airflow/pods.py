"""A stage in a pod of Kubernetes, by Airflow's own KubernetesPodOperator. Imported only where `cluster.backend` is kubernetes."""

from __future__ import annotations

import json
import os
from functools import cached_property
from typing import Any

from airflow.providers.cncf.kubernetes.operators.pod import KubernetesPodOperator
from airflow.providers.cncf.kubernetes.pod_generator import PodGenerator
from airflow.providers.cncf.kubernetes.utils.pod_manager import PodManager, PodNotFoundException
from airflow.sdk.exceptions import AirflowException
from kubernetes.client.exceptions import ApiException

from autoglm_airflow.command import Ended
from autoglm_airflow.operators import StageOperator, record_of
from autoglm_airflow.podwatch import PodTrigger, Watched, plain
from autoglm_ops.cluster import podstate
from autoglm_ops.cluster.pod import CONTAINER
from autoglm_ops.contracts.cluster import JobStatus
from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.contracts.record import Completion
from autoglm_ops.errors import TryAgain


class TrainOnKubernetes(StageOperator, KubernetesPodOperator):
    """Sends the stage's inputs to the store, runs its pod, and believes the record in the store, never the pod's phase (apache/airflow #73006).

    Where the pod left no record, what Kubernetes says of it does: the image, the Secret, the scheduler, memory, by `podstate`, with the
    exit code that says whether it is tried again.

    durable: after a restart of worker or scheduler the pod is found again. deferrable (Airflow's `[operators] default_deferrable`): no
    worker waits for it. A stage that needs no pod of its own (cached, done, or several pods) runs as `StageOperator` runs it. Nothing
    of it is a template (threats F27, F28).
    """

    def __init__(self, *, stage: str, **kwargs: Any) -> None:
        kwargs = {"durable": True, "random_name_suffix": False, "on_finish_action": "delete_pod", **kwargs}
        super().__init__(
            stage=stage, base_container_name=CONTAINER, config_file=os.environ.get("KUBECONFIG"), startup_check_interval_seconds=2,
            log_events_on_failure=True, log_pod_spec_on_failure=False, do_xcom_push=False, termination_message_policy="FallbackToLogsOnError",
            **kwargs,
        )  # fmt: skip

    def execute(self, context: Any) -> Any:
        info = self.info(context)
        sent = self.command("runs", "send", info.run, self.stage)
        if sent.code:
            self._ended = sent
            return StageOperator.execute(self, context)
        posted = sent.json()
        if posted["pod"] is None:
            return StageOperator.execute(self, context)
        self.full_pod_spec = PodGenerator.deserialize_model_dict(posted.pop("pod"))
        self._place(posted)
        self._pod_said(lambda: KubernetesPodOperator.execute(self, context))
        return self._taken(context)

    def trigger_reentry(self, context: Any, event: dict[str, Any]) -> Any:
        """Where the trigger wakes this task: the pod has ended, somehow."""
        self._place(event.get(_POSTED) or {})
        self._pod_said(lambda: KubernetesPodOperator.trigger_reentry(self, context, event))
        return self._taken(context)

    def defer(self, *, trigger: Any, **kwargs: Any) -> None:
        super().defer(trigger=PodTrigger(**trigger.serialize()[1]), **kwargs)

    @staticmethod
    def _get_ti_pod_labels(context: Any = None, include_try_number: bool = True) -> dict[str, str]:
        """Airflow's, which of a run id without a letter makes a label that begins with '-', and no API server takes that."""
        labels = KubernetesPodOperator._get_ti_pod_labels(context, include_try_number)
        return {name: value.strip("-_.") for name, value in labels.items()}

    def find_pod(self, namespace: str, context: Any, *, exclude_checked: bool = True) -> Any:
        """By its name, which is its attempt's. Airflow's labels are a task's: they lead to the pod of an older attempt as well, which may
        still be ending and can publish nothing, and to none that another DAG run of the same work has started."""
        if self.full_pod_spec is None:
            return KubernetesPodOperator.find_pod(self, namespace, context, exclude_checked=exclude_checked)
        try:
            return self.hook.get_pod(self.full_pod_spec.metadata.name, namespace)
        except ApiException as error:
            if error.status != 404:
                raise
            return None

    def _get_pod_from_task_state_store(self, context: Any) -> None:
        """What Airflow remembers of this task is the pod of whichever attempt was its last."""

    @cached_property
    def pod_manager(self) -> PodManager:
        return Watched(kube_client=self.client, callbacks=self.callbacks)

    def cleanup(self, pod: Any, remote_pod: Any, xcom_result: dict[str, Any] | None = None, context: Any = None) -> None:
        """The last look at the pod, before Airflow deletes it."""
        if remote_pod is not None and not self._killed:
            self._seen = self._look(remote_pod)
        KubernetesPodOperator.cleanup(self, pod, remote_pod, xcom_result, context)

    def on_kill(self) -> None:
        StageOperator.on_kill(self)
        KubernetesPodOperator.on_kill(self)

    def run_stage(self, info: RunInfo) -> Completion:
        ended = self._ended or self.command("runs", *self._words[:1], info.run, self.stage, *self._words[1:])
        return record_of(ended, info, self.stage)

    def _place(self, posted: dict[str, Any]) -> None:
        """What `runs send` knew of the cluster. A deferred task has it from its trigger: it is another process by then."""
        self.cluster_context = posted.get("context")
        self.schedule_timeout_seconds = self.startup_timeout_seconds = round(posted.get("start_seconds", 600))
        self.trigger_kwargs = {_POSTED: posted}

    def _pod_said(self, act: Any) -> None:
        """What the pod's phase says is told and no more: the record decides."""
        try:
            act()
        except (AirflowException, ApiException) as error:
            self.log.warning("the pod: %s", error)
            self._seen = self._seen or _fault(error)

    def _look(self, pod: Any) -> JobStatus | None:
        try:
            found = plain(self.hook.get_pod(pod.metadata.name, pod.metadata.namespace))
        except ApiException as error:
            return podstate.deleted(0) if error.status == 404 else None
        return podstate.outlook(found, 0)

    def _taken(self, context: Any) -> Any:
        said = () if self._seen is None else (f"--said={self._seen.model_dump_json()}",)
        self._words = ("take", *said)
        return StageOperator.execute(self, context)

    _words: tuple[str, ...] = ("exec",)
    _seen: JobStatus | None = None
    _ended: Ended | None = None


_POSTED = "posted"


def _fault(error: Exception) -> JobStatus:
    """Where there is no pod to be looked at: it is gone, or the cluster did not take it."""
    if isinstance(error, PodNotFoundException):
        return podstate.deleted(0)
    if isinstance(error, ApiException) and (refused := podstate.refused(_message(error), int(error.status or 0))):
        return refused
    reason = f"lost: the pod left no result: {str(error)[:1000]}"
    return JobStatus(state="lost", exit=TryAgain.exit_code, seconds=0, reason=reason)


def _message(error: ApiException) -> str:
    try:
        return str(json.loads(error.body)["message"])
    except (TypeError, ValueError, KeyError):
        return str(error.reason)
