"""Many jobs by launchers that start each by itself: how each ended, in their order, whatever happens to one."""

from __future__ import annotations

import threading
import time

from autoglm_ops.cluster.many import at_once, in_turn
from autoglm_ops.contracts.cluster import JobSpec, JobStatus
from autoglm_ops.errors import Refused, TryAgain

JOBS = [JobSpec(name=name, command=()) for name in "abcd"]


def run(job: JobSpec) -> JobStatus:
    if job.name == "b":
        raise Refused("quota: gpus")
    if job.name == "c":
        raise TryAgain("the API server is away")
    return JobStatus(state="succeeded", exit=0, seconds=1, reason=job.name)


def test_one_that_is_refused_stops_no_other() -> None:
    wanted = [
        ("succeeded", 0, "a"),
        ("refused", 3, "quota: gpus"),
        ("refused", 75, "the API server is away"),
        ("succeeded", 0, "d"),
    ]
    for found in (in_turn(run, JOBS), at_once(run, JOBS, None), at_once(run, JOBS, 1)):
        assert [(one.state, one.exit, one.reason) for one in found] == wanted
    assert in_turn(run, []) == at_once(run, [], 3) == []


def test_a_cancel_is_meant_for_all_that_are_left() -> None:
    began = []

    def stopped(job: JobSpec) -> JobStatus:
        began.append(job.name)
        return JobStatus(state="cancelled" if job.name == "b" else "succeeded", exit=143 if job.name == "b" else 0, seconds=1)

    assert [one.state for one in in_turn(stopped, JOBS)] == ["succeeded", "cancelled", "cancelled", "cancelled"]
    assert began == ["a", "b"]


def test_no_more_than_the_slots_run_at_once() -> None:
    going, most, lock = set[str](), [0], threading.Lock()

    def counted(job: JobSpec) -> JobStatus:
        with lock:
            going.add(job.name)
            most.append(len(going))
        time.sleep(0.05)
        with lock:
            going.remove(job.name)
        return JobStatus(state="succeeded", exit=0, seconds=0)

    at_once(counted, JOBS, 2)
    assert max(most) == 2
