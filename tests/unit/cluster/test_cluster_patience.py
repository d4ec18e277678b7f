"""How long a pod that does not start is waited for: by what holds it up, never for nothing, and not by the time in a queue."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.cluster.patience import FAREWELL_SECONDS, FAULT_SECONDS, Farewell, Patience

START = 60.0


def pending(reason: str = "", message: str = "") -> dict[str, Any]:
    waiting = [{"image": "x:1", "state": {"waiting": {"reason": reason, "message": message}}}] if reason else []
    return {"status": {"phase": "Pending", "containerStatuses": waiting}}


def unplaced(reason: str) -> dict[str, Any]:
    condition = {"type": "PodScheduled", "status": "False", "reason": reason, "message": "0/1 nodes are available"}
    labels = {"kueue.x-k8s.io/queue-name": "vision"}
    return {"metadata": {"labels": labels}, "status": {"phase": "Pending", "conditions": [condition]}}


PULLING, SECRET = pending("ErrImagePull"), pending("CreateContainerConfigError", 'secret "k" not found')
LATE, FULL, GATED, RUNNING = (
    pending("ContainerCreating"),
    unplaced("Unschedulable"),
    unplaced("SchedulingGated"),
    {"status": {"phase": "Running"}},
)


class Waited:
    """A patience on a clock of this test's own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.patience = Patience(START, lambda: self.now)

    def until(self, pod: dict[str, Any], end: float) -> tuple[float, str] | None:
        """When it was given up, and the first word why."""
        while self.now < end:
            self.now += 1
            if status := self.patience.over([pod]):
                return self.now, status.reason.partition(":")[0]
        return None


@pytest.mark.parametrize(
    ("pod", "when", "word"),
    [
        (PULLING, FAULT_SECONDS, "image"), (SECRET, FAULT_SECONDS, "secret"), (pending("InvalidImageName"), 1, "image"), (FULL, START, "unschedulable"),
        (LATE, START, "start"), (pending(), START, "start"),
    ],
)  # fmt: skip
def test_each_has_its_time(pod: dict[str, Any], when: float, word: str) -> None:
    assert Waited().until(pod, 1000) == (when, word)


def test_one_that_runs_or_waits_in_a_queue_is_never_given_up() -> None:
    assert Waited().until(RUNNING, 1000) is None
    waited = Waited()
    assert waited.until(GATED, 1000) is None
    assert waited.until(FULL, 2000) == (1000 + START, "unschedulable"), "its time begins when the queue lets it go"


@given(st.lists(st.sampled_from((PULLING, SECRET, LATE, FULL)), min_size=1, max_size=70))
def test_nothing_that_changes_is_waited_for_longer_than_that(pods: list[dict[str, Any]]) -> None:
    """Whatever a pod says from one second to the next, and whatever of several says it."""
    waited = Waited()
    found = next((at for at, pod in enumerate([*pods, *[LATE] * 70], 1) if waited.until(pod, float(at))), None)
    assert found is not None and found <= START


LEAVING = {
    "metadata": {"deletionTimestamp": "2026-01-14T05:00:00Z"},
    "spec": {"nodeName": "n7"},
    "status": {"phase": "Running"},
}
GONE = {**LEAVING, "status": {"phase": "Failed"}}


@pytest.mark.parametrize(
    ("pod", "deadline", "when"),
    [
        (LEAVING, None, FAREWELL_SECONDS),
        (LEAVING, 1e6, FAREWELL_SECONDS),
        (RUNNING, 500.0, 500 + FAREWELL_SECONDS),  # the kubelet ends it at its deadline, where there is a kubelet
        (RUNNING, None, None),
        (LATE, 10.0, None),
        (GONE, 10.0, None),
    ],
)
def test_a_pod_whose_node_is_lost_is_not_waited_for_for_ever(
    pod: dict[str, Any], deadline: float | None, when: float | None
) -> None:
    """Nobody but the node says that a pod has ended; Kubernetes leaves it Terminating, its phase Running, until the node is back."""
    now = 0.0
    farewell = Farewell(deadline, lambda: now)
    while (status := farewell.over({"a": RUNNING if deadline is None else GONE, "b": pod})) is None and now < 2000:
        now += 1
    assert (None if status is None else now - 1) == when
    if status is not None:
        assert (status.state, status.exit) == ("lost", 75) and status.reason.startswith("node: the pod ")
