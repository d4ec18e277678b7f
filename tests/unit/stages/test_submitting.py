"""A job on a cluster that is away for a while is still that job, and nothing is sent that could not be followed."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from autoglm_ops.cluster import exchange
from autoglm_ops.contracts.cluster import JobSpec, JobStatus, Seen, WorkResult
from autoglm_ops.errors import Refused, TryAgain, UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.stages import launchers, submitting
from autoglm_ops.store import open_store


class Cluster:
    """A cluster that says what the test wants."""

    waits = False

    def __init__(self) -> None:
        self.away, self.refuses, self.sees = False, False, "absent"
        self.sent: list[JobSpec] = []

    def run(self, job: JobSpec) -> JobStatus:
        pytest.fail("a job that outlives its launcher is sent and followed, never run by its keeper")

    def run_all(self, jobs: Sequence[JobSpec], slots: int | None = None) -> list[JobStatus]:
        pytest.fail("a job of `submit` goes by itself")

    def look(self, job: JobSpec) -> Seen:
        return self.sees  # type: ignore[return-value]

    def submit(self, job: JobSpec) -> None:
        self.sent.append(job)
        self.sees = "running"

    def follow(self, job: JobSpec) -> JobStatus:
        if self.away:
            raise TryAgain("the API server does not answer after 120 s; try again")
        if self.refuses:
            raise Refused("the Kubernetes API server refuses: 403 Forbidden: pods is forbidden")
        return JobStatus(state="succeeded", exit=0, seconds=1)

    def cancel(self, job: JobSpec) -> bool:
        self.sees = "absent"
        return True

    def sweep(self, wanted: Callable[[str, int], bool], *, dry: bool = False) -> list[str]:
        return []


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    found = Cluster()
    monkeypatch.setattr(launchers, "open_launcher", lambda settings: (found, sys.executable))
    monkeypatch.setattr(submitting, "_start_keeper", lambda record, folder, home: None)
    return found


def test_a_keeper_that_finds_the_cluster_away_does_not_say_that_the_job_failed(cluster: Cluster, tmp_path: Path) -> None:
    """It had, for good: the job went on, nobody followed it, and its output never came."""
    job = submitting.submit(submitting.Request(command=("true",)), Settings(), tmp_path)
    cluster.away = True
    with pytest.raises(TryAgain):
        submitting.keep(job.id, tmp_path)
    assert submitting.standing(job.id, tmp_path).state == "running"
    cluster.away = False
    store = open_store(None, tmp_path)
    exchange.publish(store, WorkResult(key=job.job.key or "", attempt=1, state="succeeded", exit=0, seconds=1))
    assert submitting.keep(job.id, tmp_path).state == submitting.standing(job.id, tmp_path).state == "succeeded"
    assert cluster.sees == "absent"


def test_a_refusal_to_say_how_a_job_does_does_not_end_it(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A role that was changed under a keeper had made a running job `failed`, for good: nobody could cancel it any more."""
    job = submitting.submit(submitting.Request(command=("true",)), Settings(), tmp_path)
    cluster.refuses = True
    with pytest.raises(Refused, match="403"):
        submitting.keep(job.id, tmp_path)
    assert submitting.standing(job.id, tmp_path).state == "running"

    def look(job_: JobSpec) -> Seen:
        raise Refused("403")

    with monkeypatch.context() as patch, pytest.raises(Refused, match="pods is forbidden"):
        patch.setattr(cluster, "look", look)
        submitting.keep(job.id, tmp_path)
    cluster.sees = "ended"
    assert submitting.keep(job.id, tmp_path).state == submitting.standing(job.id, tmp_path).state == "failed"


@pytest.mark.parametrize("seen", ["absent", "running"])
def test_a_job_that_ends_while_the_cluster_is_asked_is_neither_lost_nor_followed_again(
    seen: Seen, cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its keeper lived at the first look and had written the end by the second: `--wait` had said "lost" of a job that succeeded."""
    job = submitting.submit(submitting.Request(command=("true",)), Settings(), tmp_path)
    Path(job.log).write_text("what it said", encoding="utf-8")
    kept = [True]

    def look(job_: JobSpec) -> Seen:
        JobStatus(state="succeeded", exit=0, seconds=1).write(tmp_path / "jobs" / job.id / "status.json")
        kept[0] = False
        return seen

    monkeypatch.setattr(submitting, "_is_kept", lambda folder: kept[0])
    monkeypatch.setattr(cluster, "look", look)
    assert submitting.standing(job.id, tmp_path).state == ("running" if seen == "running" else "succeeded")
    assert submitting.standing(job.id, tmp_path).state == "succeeded" and Path(job.log).exists()


def test_one_job_whose_cluster_is_away_does_not_hide_the_others(
    cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs = [submitting.submit(submitting.Request(command=("true",)), Settings(), tmp_path) for _ in range(2)]
    look = cluster.look

    def away(job: JobSpec) -> Seen:
        if job == jobs[0].job:
            raise TryAgain("the API server does not answer")
        return look(job)

    monkeypatch.setattr(cluster, "look", away)
    shown = [submitting.glance(record, tmp_path) for record in submitting.listed(tmp_path)]
    assert [(now.state, now.reason) for now in shown] == [("running", ""), ("unknown", "the API server does not answer")]


def test_a_folder_for_logs_that_cannot_be_is_said_before_anything_is_sent(cluster: Cluster, tmp_path: Path) -> None:
    """The job had been running by then, and nobody knew its id."""
    (tmp_path / "file").touch()
    for logs in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UsageError, match=r"--logs .*; name a folder"):
            submitting.submit(submitting.Request(command=("true",), logs=logs), Settings(), tmp_path)
    assert cluster.sent == [] and not (tmp_path / "jobs").exists()
