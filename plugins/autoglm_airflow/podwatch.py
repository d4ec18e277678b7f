"""Waiting for a pod to start and to end under Airflow, by our own launcher's patience: in the worker, and in the triggerer when the task
is deferred.

Airflow's own wait knows images alone, gives those up at the first fault, and calls everything else "took too long"; for the end of a pod on
a lost node it waits for good.
"""

from __future__ import annotations

import asyncio
from functools import cached_property
from typing import Any

from airflow.providers.cncf.kubernetes.triggers.pod import KubernetesPodTrigger
from airflow.providers.cncf.kubernetes.utils.pod_manager import AsyncPodManager, PodLaunchTimeoutException, PodManager
from kubernetes.client import ApiClient

from autoglm_ops.cluster import podstate
from autoglm_ops.cluster.patience import Farewell, Patience


class Watched(PodManager):
    """For a worker that waits itself."""

    @cached_property
    def _farewell(self) -> Farewell:
        return Farewell(None)

    def read_pod(self, pod: Any) -> Any:
        """Raises PodLaunchTimeoutException of one that was told to stop and whose node, which is lost, never says that it has."""
        return _ending(super().read_pod(pod), self._farewell)

    async def await_pod_start(
        self, pod: Any, schedule_timeout: int = 120, startup_timeout: int = 120, check_interval: float = 1
    ) -> None:
        patience = Patience(schedule_timeout)
        while not _begun(self.read_pod(pod), patience):
            await asyncio.sleep(check_interval)
        self.stop_watching_events = True


class WatchedAsync(AsyncPodManager):
    """For the triggerer."""

    async def await_pod_start(
        self, pod: Any, schedule_timeout: int = 120, startup_timeout: int = 120, check_interval: float = 1
    ) -> None:
        patience = Patience(schedule_timeout)
        while not _begun(await self.read_pod(pod), patience):
            await asyncio.sleep(check_interval)
        self.stop_watching_events = True


class PodTrigger(KubernetesPodTrigger):
    """Airflow's, with that wait."""

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{__name__}.{type(self).__name__}", super().serialize()[1]

    @cached_property
    def _farewell(self) -> Farewell:
        return Farewell(None)

    def define_pod_container_state(self, pod: Any) -> Any:
        """Asked at every look. Raises as `Watched.read_pod` does."""
        return super().define_pod_container_state(_ending(pod, self._farewell))

    @cached_property
    def pod_manager(self) -> AsyncPodManager:
        return WatchedAsync(async_hook=self.hook)


def plain(pod: Any) -> dict[str, Any]:
    """A client's pod as the JSON that `podstate` reads."""
    found: dict[str, Any] = ApiClient().sanitize_for_serialization(pod)
    return found


def _ending(pod: Any, farewell: Farewell) -> Any:
    found = plain(pod)
    if status := farewell.over({found["metadata"]["name"]: found}):
        raise PodLaunchTimeoutException(status.reason)
    return pod


def _begun(pod: Any, patience: Patience) -> bool:
    """Whether it runs. Raises PodLaunchTimeoutException, after which Airflow looks no further, when it never will."""
    found = plain(pod)
    seen = podstate.seen(found)
    if seen == "pending":
        status = patience.over([found])
    else:  # refused by its node before a container began: there is no log to be followed
        status = podstate.verdict(found, 0) if seen == "ended" and not found["status"].get("containerStatuses") else None
    if status is not None:
        raise PodLaunchTimeoutException(status.reason)
    return seen != "pending"
