"""How long pods that do not start are waited for, one rule for our own launcher and for Airflow's operator; and those that do not end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping

from autoglm_ops.cluster import podstate
from autoglm_ops.cluster.pod import GRACE_SECONDS
from autoglm_ops.cluster.podstate import Pod
from autoglm_ops.contracts.cluster import JobStatus

FAULT_SECONDS = 20.0
"""How long a fault that the kubelet retries (an image, a Secret that is not there yet) may last."""

FAREWELL_SECONDS = GRACE_SECONDS + 60.0
"""How long a pod may take to be gone that was told to stop, or whose deadline is over: its grace, and what the kubelet needs to say so."""


class Patience:
    """start_seconds: how long pods may wait for their place, their image and their inputs. Time in a queue does not count."""

    def __init__(self, start_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._start, self._clock = start_seconds, clock
        self._begun = self._hindered = clock()

    def over(self, pods: Iterable[Pod]) -> JobStatus | None:
        """Why the job is given up now; None while it may still start."""
        now = self._clock()
        pending = [pod for pod in pods if podstate.seen(pod) == "pending"]
        status, never = next((why for pod in pending if (why := podstate.hindrance(pod))), (None, False))
        word = "" if status is None else status.reason.partition(":")[0]
        if word == "queued":
            self._begun = now
        if word in ("", "queued"):
            self._hindered = now
        waited, lasted = now - self._begun, now - self._hindered
        late = bool(pending) and waited >= self._start
        if not (never or late or (word not in ("", "unschedulable") and lasted >= FAULT_SECONDS)):
            return None
        said = status or podstate.late(pending[0])
        return said.model_copy(update={"seconds": round(waited, 3)})


class Farewell:
    """A pod's end is said by its node. Of one that is lost nobody says it, and the pod stays as it was (Kubernetes' "Terminating")."""

    def __init__(self, deadline: float | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._deadline, self._clock = deadline, clock
        self._since: dict[tuple[str, bool], float] = {}

    def over(self, pods: Mapping[str, Pod]) -> JobStatus | None:
        """Why a pod, by name, is given up now; None while its end may still be said."""
        now = self._clock()
        for name, pod in pods.items():
            left = podstate.leaving(pod)
            if podstate.seen(pod) == "ended" or (not left and (podstate.seen(pod) == "pending" or self._deadline is None)):
                continue
            since = self._since.setdefault((name, left), now)
            if now - since > FAREWELL_SECONDS + (0.0 if left else self._deadline or 0.0):
                return podstate.silent(pod, round(now - since, 3))
        return None
