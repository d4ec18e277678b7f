"""How a pod's JSON is read: each end and each hindrance by its own word, quotas by their name."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.cluster import podstate


def ended(code: int = 0, why: str = "Completed", **status: Any) -> dict[str, Any]:
    terminated = {"exitCode": code, "reason": why, "message": "the last line"}
    return {
        "spec": {"containers": [{"resources": {"limits": {"memory": "2Gi"}}}]},
        "status": {
            "phase": "Failed" if code else "Succeeded",
            "containerStatuses": [{"state": {"terminated": terminated}}],
            **status,
        },
    }


@pytest.mark.parametrize(
    ("pod", "state", "code", "word"),
    [
        (ended(), "succeeded", 0, ""),
        (ended(3, "Error"), "failed", 3, "exit:"),
        (ended(137, "OOMKilled"), "lost", 3, "oom: the job took more memory than 2Gi"),
        (
            ended(1, "Error", reason="Evicted", message="The node was low on resource: memory."),
            "lost",
            75,
            "evicted: The node was low",
        ),
        (ended(1, "Error", reason="DeadlineExceeded"), "deadline", 3, "deadline:"),
        ({**ended(143, "Error"), "metadata": {"deletionTimestamp": "2026-01-14T05:00:00Z"}}, "lost", 75, "deleted: somebody"),
        ({**ended(3, "Error"), "metadata": {"deletionTimestamp": "2026-01-14T05:00:00Z"}}, "failed", 3, "exit:"),
        (ended(143, "Error"), "failed", 143, "exit:"),
        (  # a drained node forgets the container before it says how it ended
            {"status": {"phase": "Failed"}, "metadata": {"deletionTimestamp": "2026-01-14T05:00:00Z"}},
            "lost",
            75,
            "deleted: somebody",
        ),
        ({"status": {"phase": "Failed", "reason": "NodeLost"}}, "lost", 75, "node:"),
        ({"status": {"phase": "Failed"}}, "failed", 1, "exit:"),
        *(
            ({"status": {"phase": "Failed", "reason": why, "message": "Pod was rejected: no devices"}}, state, code, word)
            for why, state, code, word in (
                ("UnexpectedAdmissionError", "lost", 75, "node: UnexpectedAdmissionError: Pod was rejected: no devices"),
                ("OutOfnvidia.com/gpu", "lost", 75, "node: OutOfnvidia.com/gpu: Pod was rejected"),
                ("NodeAffinity", "lost", 75, "node: NodeAffinity: Pod was rejected"),
                ("Evicted", "lost", 75, "evicted: Pod was rejected"),
                ("DeadlineExceeded", "deadline", 3, "deadline:"),
            )
        ),
        (ended(3, "Error", reason="OutOfcpu"), "failed", 3, "exit:"),  # a container began: what it said counts
    ],
)
def test_an_end_has_a_word(pod: dict[str, Any], state: str, code: int, word: str) -> None:
    status = podstate.verdict(pod, 1.0)
    assert (status.state, status.exit) == (state, code) and status.reason.startswith(word)


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {
        "status": {
            "phase": "Pending",
            "containerStatuses": [{"image": "x:1", "state": {"waiting": {"reason": reason, "message": message}}}],
        }
    }


@pytest.mark.parametrize(
    ("pod", "word", "never"),
    [
        (waiting("ErrImagePull", "not found"), "image: x:1 cannot be had (ErrImagePull): not found", False),
        (waiting("InvalidImageName"), "image:", True),
        (waiting("CreateContainerConfigError", 'secret "team-keys" not found'), "secret:", False),
        (waiting("CreateContainerError", "no such file"), "start:", False),
        (
            {
                "status": {
                    "conditions": [
                        {
                            "type": "PodScheduled",
                            "status": "False",
                            "message": "0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
                        }
                    ]
                }
            },
            "unschedulable: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.",
            False,
        ),
    ],
)
def test_a_hindrance_has_a_word(pod: dict[str, Any], word: str, never: bool) -> None:
    found = podstate.hindrance(pod)
    assert found is not None and found[0].reason.startswith(word) and found[1] is never and found[0].state == "refused"


def test_a_pod_that_is_starting_is_not_hindered() -> None:
    assert podstate.hindrance(waiting("ContainerCreating")) is None
    assert podstate.hindrance({"status": {}}) is None


def test_a_pod_that_is_held_back_is_in_a_queue() -> None:
    gated = {
        "conditions": [
            {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated", "message": "Scheduling is blocked"}
        ]
    }
    for labels, said in ((({"kueue.x-k8s.io/queue-name": "vision"}), "the queue vision"), ({}, "a scheduling gate")):
        found = podstate.hindrance({"metadata": {"labels": labels}, "status": gated})
        assert found is not None and found[0].reason.startswith("queued:") and said in found[0].reason


def test_the_last_look_at_a_pod_says_what_became_of_it() -> None:
    def said(pod: dict[str, Any]) -> str:
        status = podstate.outlook(pod, 7.0)
        assert status is None or status.seconds == 7.0
        return "" if status is None else status.reason

    assert said({"status": {"phase": "Running"}}) == ""
    assert said(ended(137, "OOMKilled")).startswith("oom:")
    assert said(waiting("ImagePullBackOff")).startswith("image:")
    assert said(waiting("ContainerCreating")).startswith(
        "start: the pod was not running within cluster.start_seconds (ContainerCreating)"
    )
    assert "no container yet" in said({"status": {"phase": "Pending"}})


def test_a_refusing_quota_is_named() -> None:
    said = 'pods "a" is forbidden: exceeded quota: team-quota, requested: requests.cpu=4, used: requests.cpu=1, limited: requests.cpu=2'
    status = podstate.refused(said, 403)
    assert status and status.exit == 3 and "team-quota" in status.reason and "ask for less" in status.reason
    status = podstate.refused(said.replace("requested: requests.cpu=4", "requested: requests.cpu=1500m"), 403)
    assert status and status.exit == 75 and "when others end" in status.reason


def test_what_a_job_would_break_is_told_before_it_is_sent() -> None:
    quota = {
        "metadata": {"name": "vision"},
        "status": {"hard": {"requests.memory": "4Gi", "pods": "2"}, "used": {"requests.memory": "3Gi", "pods": "1"}},
    }
    pod = {"spec": {"containers": [{"resources": {"requests": {"memory": "2048Mi"}, "limits": {"memory": "2048Mi"}}}]}}
    assert podstate.over([quota], podstate.asked([pod])) == [
        "vision: requests.memory: asks 2Gi, in use is 3Gi, the limit is 4Gi"
    ]
    assert podstate.over([quota], podstate.asked([{"spec": {"containers": [{}]}}])) == []


@pytest.mark.parametrize(
    "spec",
    [
        {"scopes": ["NotTerminating"]},
        {"scopeSelector": {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "In", "values": ["high"]}]}},
    ],
)
def test_a_quota_of_other_pods_breaks_nothing(spec: dict[str, Any]) -> None:
    """A full quota of long-running services had refused a job that the cluster would have taken."""
    quota = {"metadata": {"name": "services"}, "spec": spec, "status": {"hard": {"pods": "1"}, "used": {"pods": "1"}}}
    pod = {"spec": {"containers": [{}]}}
    assert podstate.over([quota], podstate.asked([pod])) == []
    assert podstate.over([{**quota, "spec": {"hard": {"pods": "1"}}}], podstate.asked([pod])) != []


@given(
    st.integers(0, 10**6),
    st.sampled_from(["", "n", "u", "m", "k", "Ki", "Mi", "Gi", "M", "G", "T", "P", "E", "Ti", "Pi", "Ei"]),
)
def test_quantities(number: int, unit: str) -> None:
    assert podstate.amount(f"{number}{unit}") == pytest.approx(number * podstate.amount(f"1{unit}"))


@pytest.mark.parametrize("text", ["", "Gi", "1Xi", "one", "1 Gi"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        podstate.amount(text)
