"""Whom to believe: the store, then the launcher, never an exit of 0 alone (threats F21, F22)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from autoglm_ops.cluster import exchange
from autoglm_ops.cluster.dispatch import run_work, run_works
from autoglm_ops.cluster.many import in_turn
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Seen, Store, Work, WorkResult
from autoglm_ops.errors import UsageError
from autoglm_ops.store import open_store

WORK = Work(name="train", command=("python", "-c", ""))
JOB = JobSpec(name="train", command=(), store="s3://b/p")
FINE = JobStatus(state="succeeded", exit=0, seconds=1)


class Scripted:
    """A cluster that says what the test wants, and remembers what it was given."""

    waits = False

    def __init__(self, says: JobStatus, sees: Seen = "absent", leaves: tuple[Store, str] | None = None) -> None:
        self.says, self.sees, self.leaves = says, sees, leaves
        self.ran: list[JobSpec] = []

    def run(self, job: JobSpec) -> JobStatus:
        self.ran.append(job)
        if self.leaves is not None and job.key is not None:
            store, state = self.leaves
            values = {
                "key": job.key,
                "attempt": job.attempt,
                "state": state,
                "exit": 0 if state == "succeeded" else 3,
                "seconds": 1,
            }
            exchange.publish(store, WorkResult.model_validate(values))
        return self.says

    def run_all(self, jobs: Sequence[JobSpec], slots: int | None = None) -> list[JobStatus]:
        return in_turn(self.run, jobs)

    def look(self, job: JobSpec) -> Seen:
        return self.sees


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), tmp_path)


def test_an_exit_of_zero_without_a_result_is_not_success(store: Store) -> None:
    status = run_work(WORK, JOB, Scripted(FINE), store, "python")
    assert (status.state, status.exit) == ("lost", 75) and status.reason.startswith("no-record:")


def test_a_result_is_believed_whatever_the_launcher_saw(store: Store) -> None:
    lost = JobStatus(state="lost", exit=75, seconds=1, reason="deleted: by somebody, after it had published")
    assert run_work(WORK, JOB, Scripted(lost, leaves=(store, "succeeded")), store, "python").state == "succeeded"


def test_a_failure_keeps_its_exit_code_whatever_the_pod_said(store: Store) -> None:
    status = run_work(WORK, JOB, Scripted(FINE, leaves=(store, "failed")), store, "python")
    assert (status.state, status.exit) == ("failed", 3)


def test_of_several_nodes_the_one_that_was_lost_is_the_cause_and_not_what_the_others_failed_of(store: Store) -> None:
    lost = JobStatus(state="lost", exit=75, seconds=1, reason="deleted: somebody removed the pod")
    pair = JOB.model_copy(update={"resources": JOB.resources.model_copy(update={"nodes": 2})})
    assert run_work(WORK, pair, Scripted(lost, leaves=(store, "failed")), store, "python") == lost
    assert run_work(WORK, JOB, Scripted(lost, leaves=(store, "failed")), store, "python").exit == 3


def test_a_job_on_its_way_is_followed_and_not_claimed_again(store: Store) -> None:
    launcher = Scripted(JobStatus(state="lost", exit=75, seconds=1, reason="evicted"), sees="running")
    for _ in range(3):
        run_work(WORK, JOB, launcher, store, "python")
    assert [job.attempt for job in launcher.ran] == [1, 1, 1]
    launcher.sees = "absent"
    run_work(WORK, JOB, launcher, store, "python")
    assert launcher.ran[-1].attempt == 2 and launcher.ran[-1].handle.endswith("-2")


def test_done_work_starts_nothing(store: Store) -> None:
    run_work(WORK, JOB, Scripted(FINE, leaves=(store, "succeeded")), store, "python")
    idle = Scripted(FINE)
    assert run_work(WORK, JOB, idle, store, "python").state == "succeeded" and idle.ran == []


def test_of_many_only_what_is_not_done_is_run_and_each_gets_its_own_answer(store: Store) -> None:
    works = [WORK.model_copy(update={"name": name}) for name in "abc"]
    assert run_work(works[1], JOB, Scripted(FINE, leaves=(store, "succeeded")), store, "python").state == "succeeded"
    launcher = Scripted(FINE, leaves=(store, "failed"))
    assert [(status.state, status.exit) for status in run_works(works, JOB, launcher, store, "python")] == [
        ("failed", 3), ("succeeded", 0), ("failed", 3),
    ]  # fmt: skip
    assert [job.key for job in launcher.ran] == [exchange.describe(store, works[at]) for at in (0, 2)]


def test_a_job_that_is_to_wait_is_refused_where_none_can(store: Store) -> None:
    launcher = Scripted(FINE)
    with pytest.raises(UsageError, match="only Slurm's jobs can"):
        run_work(WORK, JOB.model_copy(update={"after": ("other",)}), launcher, store, "python")
    assert not launcher.ran and exchange.newest(store, exchange.describe(store, WORK)) == 0
