"""Jobs as pods of a Kubernetes cluster. The owner of the kubernetes client.

A pod is named by its job's key and attempt, so a launcher that was killed finds its pod again, and two launchers make one. The log is
followed and taken up again where it broke off; the API server may be away for a while. What the launcher answers is how the pod
ended; whether work was done is asked of the store by `dispatch` (threats F22).
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.config.config_exception import ConfigException

from autoglm_ops.cluster import podstate
from autoglm_ops.cluster.local import CANCELLED, Flag, on_signals, sink_of
from autoglm_ops.cluster.many import at_once
from autoglm_ops.cluster.patience import Farewell, Patience
from autoglm_ops.cluster.pod import APP, CONTAINER, GRACE_SECONDS, KEY, Manifest, names, pods, selector
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Seen
from autoglm_ops.contracts.placement import KubernetesPlace
from autoglm_ops.errors import Refused, TryAgain, UsageError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.5
BUDGET_SECONDS = 120.0
REQUEST_SECONDS = (5.0, 30.0)
"""To connect, and between two bytes of an answer: a server, or a way to it, that went silent says nothing at all."""
Sink = Callable[[str, bytes], None]


class KubernetesLauncher:
    """start_seconds: how long a pod may wait for its place."""

    waits = False

    def __init__(self, place: KubernetesPlace, start_seconds: float = 600.0) -> None:
        self._place, self._start = place, start_seconds
        self._core = _connect(place.context)

    def run(self, job: JobSpec) -> JobStatus:
        """Start the job's pods, or find them, and follow them to their end; then they are removed. SIGTERM and SIGINT remove them at once."""
        stop = Flag()
        with on_signals(stop.set):
            return self._run(job, stop)

    def run_all(self, jobs: Sequence[JobSpec], slots: int | None = None) -> list[JobStatus]:
        """As `run`, each by a thread of its own; a signal removes the pods of all."""
        stop = Flag()
        with on_signals(stop.set):
            return at_once(lambda job: self._run(job, stop), jobs, slots)

    def _run(self, job: JobSpec, stop: Flag) -> JobStatus:
        if stop:
            return _stopped(0)
        try:
            self.submit(job)
            return self._follow(job, stop)
        except _RefusedJob as error:
            return error.status
        finally:
            self.cancel(job)

    def submit(self, job: JobSpec) -> None:
        """Create the pods that are not there. Raises Refused or TryAgain when the cluster does not take them, UsageError for a bad spec."""
        for manifest in self.prepare(job):
            self._create(manifest)

    def prepare(self, job: JobSpec) -> list[Manifest]:
        """The manifests of the job's pods, once room for those that are not there is seen to be, and the pods of older attempts are gone.

        Raises as `submit` does.
        """
        manifests = pods(job, self._place)
        there = {pod["metadata"]["name"] for pod in self._pods(job)}
        self._remove_older(job)
        missing = [manifest for manifest in manifests if manifest["metadata"]["name"] not in there]
        if missing:
            self._check_quota(job, missing)
        return manifests

    def look(self, job: JobSpec) -> Seen:
        """The state of the pod of rank 0. One that was told to stop is nothing to be followed: on a node that is lost it stays for good."""
        pod = self._pod(names(job)[0])
        return "absent" if pod is None else "ended" if podstate.leaving(pod) else podstate.seen(pod)

    def follow(self, job: JobSpec) -> JobStatus:
        """The log of rank 0 to stderr until the pods end: the first that fails ends the job, else all have to succeed.

        A signal ends the following alone.
        """
        stop = Flag()
        with on_signals(stop.set):
            return self._follow(job, stop)

    def _follow(self, job: JobSpec, stop: Flag) -> JobStatus:
        with sink_of(job) as sink, self._logs(names(job)[0], sink):
            status = self._wait(job, stop)
        if status.state != "succeeded":
            log.warning("job %s: %s: %s", job.handle, status.state, status.reason)
        return status

    def cancel(self, job: JobSpec) -> bool:
        """Remove the pods of this attempt. False when there was none."""
        found = [name for name in names(job) if self._pod(name) is not None]
        for name in found:
            self._delete(name)
        return bool(found)

    def sweep(self, wanted: Callable[[str, int], bool], *, dry: bool = False) -> list[str]:
        """Remove pods of ours that nobody waits for: ended ones, and those of a (key, attempt) that is not `wanted`. Returns their names."""
        gone = []
        for pod in self._listed(f"app.kubernetes.io/name={APP}"):
            meta = pod["metadata"]
            key, attempt = meta.get("annotations", {}).get(KEY, ""), int(meta["labels"].get("autoglm.attempt", "0"))
            if podstate.seen(pod) == "ended" or not wanted(key, attempt):
                gone.append(meta["name"])
        for name in gone if not dry else ():
            self._delete(name)
        return gone

    def _wait(self, job: JobSpec, stop: Flag) -> JobStatus:
        started, patience, farewell = time.monotonic(), Patience(self._start), Farewell(job.deadline_seconds)
        ever: set[str] = set()
        while not stop:
            seconds = round(time.monotonic() - started, 3)
            found = {name: self._pod(name) for name in names(job)}
            lost = [name for name, pod in found.items() if pod is None and name in ever]
            if lost or all(pod is None for pod in found.values()):
                return podstate.deleted(seconds)
            there = {name: pod for name, pod in found.items() if pod is not None}
            ever |= there.keys()
            ended = [podstate.verdict(pod, seconds) for pod in there.values() if podstate.seen(pod) == "ended"]
            if bad := [status for status in ended if status.state != "succeeded"]:
                return bad[0]
            if len(ended) == len(found):
                return ended[0]
            if given_up := patience.over(there.values()) or farewell.over(there):
                return given_up
            time.sleep(POLL_SECONDS)
        return _stopped(round(time.monotonic() - started, 3))

    def _check_quota(self, job: JobSpec, manifests: list[Manifest]) -> None:
        broken = self._over(manifests)
        if broken:
            raise _RefusedJob(
                JobStatus(
                    state="refused", exit=TryAgain.exit_code if self._room_ever(manifests) else Refused.exit_code, seconds=0,
                    reason=f"quota: {'; '.join(broken)}; ask for less (cluster.resources), wait for others, or have the quota raised",
                )
            )  # fmt: skip

    def _over(self, manifests: list[Manifest]) -> list[str]:
        return podstate.over(self._quotas(), podstate.asked(manifests))

    def _room_ever(self, manifests: list[Manifest]) -> bool:
        """Whether the job fits when nothing else runs."""
        empty = [{**quota, "status": {**quota.get("status", {}), "used": {}}} for quota in self._quotas()]
        return not podstate.over(empty, podstate.asked(manifests))

    def _quotas(self) -> list[dict[str, Any]]:
        try:
            return list(self._call(self._core.list_namespaced_resource_quota, self._place.namespace)["items"])
        except Refused:  # a service account that may not read quotas finds out when the pod is sent
            return []

    def _create(self, manifest: Manifest) -> None:
        name = manifest["metadata"]["name"]
        try:
            self._call(self._core.create_namespaced_pod, self._place.namespace, manifest)
        except _Answered as error:
            if (
                error.code == 409 and error.reason == "AlreadyExists"
            ):  # ours: of another launcher, or our own call whose reply was lost
                return
            status = podstate.refused(error.message, error.code)
            if status is not None:
                raise _RefusedJob(status) from error
            raise
        log.info("pod %s/%s is created", self._place.namespace, name)

    def _remove_older(self, job: JobSpec) -> None:
        """An attempt that was overtaken may not publish; its pods only cost."""
        for pod in self._listed(selector(job)):
            if int(pod["metadata"]["labels"]["autoglm.attempt"]) < job.attempt:
                self._delete(pod["metadata"]["name"])

    def _pods(self, job: JobSpec) -> list[Manifest]:
        return [pod for name in names(job) if (pod := self._pod(name)) is not None]

    def _pod(self, name: str) -> Manifest | None:
        try:
            found: Manifest = self._call(self._core.read_namespaced_pod, name, self._place.namespace)
            return found
        except _Answered as error:
            if error.code == 404:
                return None
            raise

    def _listed(self, labels: str) -> list[Manifest]:
        return list(self._call(self._core.list_namespaced_pod, self._place.namespace, label_selector=labels)["items"])

    def _delete(self, name: str) -> None:
        try:
            self._call(self._core.delete_namespaced_pod, name, self._place.namespace, grace_period_seconds=GRACE_SECONDS)
        except _Answered as error:
            if error.code != 404:
                raise

    @contextmanager
    def _logs(self, name: str, sink: Sink) -> Iterator[None]:
        """Lines of the container to `sink`, by a thread that ends with what the container said last."""
        done = threading.Event()
        thread = threading.Thread(target=self._pump, args=(name, sink, done), name="pod-log", daemon=True)
        thread.start()
        try:
            yield
        finally:
            done.set()
            thread.join(timeout=10)

    def _pump(self, name: str, sink: Sink, done: threading.Event) -> None:
        """Follow, and after a break go on behind the last line that was passed on (the server's time stamps tell it)."""
        last = ""
        while True:
            final = done.is_set()
            try:
                answer = self._core.read_namespaced_pod_log(
                    name, self._place.namespace, container=CONTAINER, follow=not final, timestamps=True,
                    _preload_content=False, _request_timeout=(5, 15), **_since(last),
                )  # fmt: skip
                for line in _lines(answer):
                    stamp, _, text = line.partition(b" ")
                    if stamp.decode("ascii", "replace") > last:
                        last = stamp.decode("ascii", "replace")
                        sink("stdout", text + b"\n")
            except (ApiException, urllib3.exceptions.HTTPError):
                pass  # not started yet, gone, or a quiet quarter of a minute: asked again
            if final:
                return
            done.wait(POLL_SECONDS)

    def _call(self, ask: Callable[..., Any], *about: Any, **more: Any) -> Any:
        """One request, repeated while the server is away. Raises _Answered for what it refuses, TryAgain when the budget is spent."""
        end, delay = time.monotonic() + BUDGET_SECONDS, 0.2
        while True:
            try:
                return json.loads(ask(*about, **more, _preload_content=False, _request_timeout=REQUEST_SECONDS).data)
            except ApiException as error:
                answered = _Answered.of(error)
                if not answered.passes:
                    raise answered from error
                said = f"{error.status} {error.reason}"
            except urllib3.exceptions.HTTPError as error:
                said = type(error).__name__
            if time.monotonic() + delay > end:
                fault = "knows us not: log in again" if said.startswith("401") else "does not answer"
                raise TryAgain(f"the Kubernetes API server {fault} ({said}) after {BUDGET_SECONDS:g} s; try again")
            time.sleep(delay)
            delay = min(2 * delay, 5.0)


class _Answered(Refused):
    """The API server said no."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(f"the Kubernetes API server refuses: {code} {reason}: {message[:500]}")
        self.code, self.reason, self.message = code, reason, message

    @property
    def passes(self) -> bool:
        """Whether the same request may be taken later. A Conflict is one: of pods that are created at once, all but one meet a quota
        that was just counted up (AlreadyExists has the same code). A 401 is another: a token ran out and is taken anew, the job goes on."""
        return self.code in (0, 401, 429) or 500 <= self.code < 600 or (self.code, self.reason) == (409, "Conflict")

    @classmethod
    def of(cls, error: ApiException) -> _Answered:
        try:
            body = json.loads(error.body)
        except (TypeError, ValueError):
            body = {}
        return cls(int(error.status or 0), str(body.get("reason", error.reason)), str(body.get("message", error.reason)))


class _RefusedJob(Refused):
    """The cluster did not take the job."""

    def __init__(self, status: JobStatus) -> None:
        super().__init__(status.reason)
        self.status, self.exit_code = status, status.exit


def _stopped(seconds: float) -> JobStatus:
    return JobStatus(state="cancelled", exit=CANCELLED, seconds=seconds, reason="cancelled: a signal asked for its end")


def _connect(context: str | None) -> Any:
    """The core API. Raises UsageError when no cluster is named anywhere."""
    configuration = client.Configuration()
    try:
        config.load_kube_config(context=context, client_configuration=configuration)
    except ConfigException as outside:
        try:
            config.load_incluster_config(client_configuration=configuration)
        except ConfigException:
            raise UsageError(
                f"cluster.backend is kubernetes, but no cluster can be found: {outside}; set KUBECONFIG, or "
                "cluster.kubernetes.context to one of its contexts"
            ) from outside
    configuration.retries = 0
    return client.CoreV1Api(client.ApiClient(configuration))


def _since(last: str) -> dict[str, Any]:
    """The API takes seconds back, not a time: enough of them, what came twice is told by its stamp."""
    return {} if not last else {"since_seconds": 120}


def _lines(answer: Any) -> Iterator[bytes]:
    rest = b""
    for chunk in answer.stream(65536):
        *lines, rest = (rest + chunk).split(b"\n")
        yield from lines
    if rest:
        yield rest
