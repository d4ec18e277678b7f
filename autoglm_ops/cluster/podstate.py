"""What Kubernetes says of a pod, in our words: pure, its JSON in and a status out. Each reason begins with a word that can be counted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autoglm_ops.cluster.pod import QUEUE
from autoglm_ops.contracts.cluster import JobStatus, Seen
from autoglm_ops.errors import BudgetSpent, Refused, TryAgain, UsageError

Pod = Mapping[str, Any]
_NEVER = {"InvalidImageName", "ErrImageNeverPull"}
_IMAGE = {"ErrImagePull", "ImagePullBackOff", "ImageInspectError", *_NEVER}
_SIGNALLED = (137, 143)
_CONFIG = {"CreateContainerConfigError", "CreateContainerError", "RunContainerError"}


def seen(pod: Pod) -> Seen:
    phase = pod.get("status", {}).get("phase", "Pending")
    return "ended" if phase in ("Succeeded", "Failed") else "running" if phase == "Running" else "pending"


def leaving(pod: Pod) -> bool:
    """Whether it was told to stop, by whomever."""
    return bool(pod.get("metadata", {}).get("deletionTimestamp"))


def verdict(pod: Pod, seconds: float) -> JobStatus:
    """How an ended pod ended. What it did is said by the store alone."""
    status = pod.get("status", {})
    if status.get("reason") == "Evicted":
        return _lost(f"evicted: {status.get('message', 'the node needed the room')}", seconds)
    if status.get("reason") == "DeadlineExceeded":
        reason = "deadline: the pod ran past its deadline; raise cluster.deadline_seconds, or give it less work"
        return JobStatus(state="deadline", exit=BudgetSpent.exit_code, seconds=seconds, reason=reason)
    if status.get("reason") in ("NodeLost", "NodeShutdown", "Shutdown", "Terminated", "Preempting"):
        return _lost(f"node: {status.get('message') or status['reason']}", seconds)
    ended = _terminated(pod)
    if status.get("phase") == "Failed" and status.get("reason") and not ended and not leaving(pod):  # rejected on arrival
        return _lost(f"node: {status['reason']}: {str(status.get('message', '')).strip()[:500]}", seconds)
    code = int(ended.get("exitCode", 0 if status.get("phase") == "Succeeded" else 1))
    if ended.get("reason") == "OOMKilled":
        return JobStatus(state="lost", exit=Refused.exit_code, seconds=seconds, reason=_out_of_memory(pod))
    if code == 0:
        return JobStatus(state="succeeded", exit=0, seconds=seconds)
    if (code in _SIGNALLED or not ended) and leaving(pod):
        return deleted(seconds)
    said = str(ended.get("message", "")).strip().splitlines()[-1:]
    return JobStatus(
        state="failed",
        exit=code,
        seconds=seconds,
        reason=f"exit: the pod ended with exit code {code}{''.join(f': {line[:500]}' for line in said)}",
    )


def hindrance(pod: Pod) -> tuple[JobStatus, bool] | None:
    """Why a pending pod does not start, and whether waiting cannot help; None when nothing is wrong yet."""
    for item in pod.get("status", {}).get("containerStatuses", ()):
        waiting = item.get("state", {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), str(waiting.get("message", "")).strip()
        if reason in _IMAGE:
            said = f"image: {item.get('image')} cannot be had ({reason}): {message[:500]}; check cluster.image and its registry"
            return _refused(said, UsageError.exit_code), reason in _NEVER
        if reason in _CONFIG:
            word = "secret" if "secret" in message.lower() else "start"
            return _refused(f"{word}: the container cannot start ({reason}): {message[:500]}", UsageError.exit_code), False
    for item in pod.get("status", {}).get("conditions", ()):
        if item.get("type") == "PodScheduled" and item.get("status") == "False":
            if item.get("reason") == "SchedulingGated":
                return _refused(_queued(pod), TryAgain.exit_code), False
            return _refused(f"unschedulable: {item.get('message', item.get('reason', ''))}", TryAgain.exit_code), False
    return None


def late(pod: Pod) -> JobStatus:
    """Of a pod that nothing hinders and that does not start all the same."""
    states = [item.get("state", {}).get("waiting", {}) for item in pod.get("status", {}).get("containerStatuses", ())]
    what = ", ".join(str(state["reason"]) for state in states if "reason" in state) or "no container yet"
    reason = f"start: the pod was not running within cluster.start_seconds ({what}); a large image takes long the first time"
    return _refused(reason, TryAgain.exit_code)


def outlook(pod: Pod, seconds: float) -> JobStatus | None:
    """What is to be said of a pod that nobody waits for any longer; None when it runs, and so nothing is wrong with it."""
    if seen(pod) == "ended":
        return verdict(pod, seconds)
    if seen(pod) == "running":
        return None
    why = hindrance(pod)
    return (why[0] if why else late(pod)).model_copy(update={"seconds": seconds})


def deleted(seconds: float) -> JobStatus:
    return _lost("deleted: somebody removed the pod, or its node was drained", seconds)


def silent(pod: Pod, seconds: float) -> JobStatus:
    """Of a pod that should have ended and of which nobody says so."""
    what = "was told to stop" if leaving(pod) else "ran past its deadline"
    name = pod.get("spec", {}).get("nodeName", "its node")
    return _lost(f"node: the pod {what}, and {name} does not say that it ended: the node is lost", seconds)


def refused(message: str, code: int) -> JobStatus | None:
    """What a refusal of the API server to take a pod means; None when it is none. 403 by a quota, a limit or a policy; 422 by its rules."""
    quota = re.search(r"exceeded quota: ([^,]+), requested: (.*?), used: (.*?), limited: (.*)", message)
    if quota:
        name, asked, used, limit = (part.strip() for part in quota.groups())
        ever = fits(asked, limit)
        said = f"quota: {name} refuses the pod: it asks {asked}, in use is {used}, the limit is {limit}"
        advice = "; it starts when others end" if ever else "; ask for less (cluster.resources), or have the quota raised"
        return _refused(said + advice, TryAgain.exit_code if ever else Refused.exit_code)
    if code in (403, 404, 422, 400):
        word = {403: "forbidden", 404: "namespace"}.get(code, "invalid")
        return _refused(f"{word}: the cluster does not take the pod: {message[:800]}", Refused.exit_code)
    return None


def fits(asked: str, limit: str) -> bool:
    """Whether each amount of `asked` alone ("requests.cpu=4,…") is within `limit`."""
    limits = {name: amount(value) for name, value in _pairs(limit)}
    return all(amount(value) <= limits.get(name, float("inf")) for name, value in _pairs(asked))


def over(quotas: Sequence[Mapping[str, Any]], asked: Mapping[str, float]) -> list[str]:
    """Which ResourceQuotas a job would break, with name, request, use and limit: the check before anything is sent.

    asked: a quota's resource name ("requests.memory", "pods") -> the amount over all pods of the job. A quota with a scope (other
    priorities, pods without a deadline) may not be about this job at all: that is the cluster's to say.
    """
    broken = []
    for quota in quotas:
        if {"scopes", "scopeSelector"} & (quota.get("spec") or {}).keys():
            continue
        hard, used = (quota.get("status", {}).get(part) or {} for part in ("hard", "used"))
        for name, value in sorted(hard.items()):
            wanted = asked.get(name, 0.0)
            if wanted and amount(used.get(name, "0")) + wanted > amount(value) + 1e-9:
                broken.append(
                    f"{quota['metadata']['name']}: {name}: asks {_plain(wanted)}, in use is {used.get(name, '0')}, the limit is {value}"
                )
    return broken


def asked(manifests: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """What pods ask of a namespace, by the names a ResourceQuota uses."""
    sums: dict[str, float] = {"pods": float(len(manifests)), "count/pods": float(len(manifests))}
    for manifest in manifests:
        for container in manifest["spec"]["containers"]:
            for part in ("requests", "limits"):
                for name, value in container.get("resources", {}).get(part, {}).items():
                    for key in (f"{part}.{name}", *([name] if part == "requests" and name in ("cpu", "memory") else [])):
                        sums[key] = sums.get(key, 0.0) + amount(value)
    return sums


_UNITS = {
    "n": 1e-9,
    "u": 1e-6,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
    "P": 1e15,
    "E": 1e18,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
    "Pi": 2**50,
    "Ei": 2**60,
}


def amount(text: str) -> float:
    """A Kubernetes quantity ("500m", "2Gi", "1e3") as a number. Raises ValueError."""
    found = re.fullmatch(r"([0-9.]+(?:[eE][+-]?[0-9]+)?)([A-Za-z]{0,2})", text.strip())
    if not found or found[2] not in {"", *_UNITS}:
        raise ValueError(f"{text!r} is no quantity")
    return float(found[1]) * _UNITS.get(found[2], 1.0)


def _pairs(text: str) -> list[tuple[str, str]]:
    return [(name.strip(), value.strip()) for name, _, value in (part.partition("=") for part in text.split(",")) if value]


def _plain(value: float) -> str:
    return f"{value / 2**30:g}Gi" if value >= 2**20 else f"{value:g}"


def _terminated(pod: Pod) -> Mapping[str, Any]:
    for item in pod.get("status", {}).get("containerStatuses", ()):
        if found := item.get("state", {}).get("terminated"):
            return dict(found)
    return {}


def _queued(pod: Pod) -> str:
    name = pod.get("metadata", {}).get("labels", {}).get(QUEUE)
    return f"queued: the pod waits in the queue {name}" if name else "queued: something holds the pod back (a scheduling gate)"


def _out_of_memory(pod: Pod) -> str:
    limit = (
        pod.get("spec", {}).get("containers", [{}])[0].get("resources", {}).get("limits", {}).get("memory", "the node's memory")
    )
    return f"oom: the job took more memory than {limit}; raise cluster.resources.memory_gib, or lower plan.micro_batch"


def _lost(reason: str, seconds: float) -> JobStatus:
    return JobStatus(state="lost", exit=TryAgain.exit_code, seconds=seconds, reason=reason)


def _refused(reason: str, code: int) -> JobStatus:
    return JobStatus(state="refused", exit=code, seconds=0, reason=reason)
