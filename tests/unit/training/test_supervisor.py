"""The supervisor over real processes that do next to nothing: no torch, no DeepSpeed. What dies or hangs is started again, and it is said."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from autoglm_ops.contracts.training import RecoveryRules
from autoglm_ops.errors import AutoGLMError, BadData, Refused, TryAgain
from autoglm_ops.training import supervisor
from autoglm_ops.training.beat import read
from autoglm_ops.training.job import Job
from autoglm_ops.training.supervisor import Trail
from autoglm_ops.training.warm import WarmGroup

BODIES = """
import os, signal, sys, time
from pathlib import Path
from autoglm_ops.errors import BadData
from autoglm_ops.training.beat import Heart

def steps(job, rank, resumed=0, count=5):
    heart = Heart(Path(job.out), rank, job.attempt)
    heart.enter("joining")
    heart.enter("training", resumed)
    for step in range(resumed + 1, resumed + count + 1):
        time.sleep(0.05)
        heart.at(step)
        yield heart
    heart.enter("done")

def run(job, rank, fault=lambda: None, times=1, resumed=0):
    for number, heart in enumerate(steps(job, rank, resumed)):
        if rank == 1 and job.attempt <= times and number == 2:
            fault()
    Path(job.out, f"ended-{rank}-{job.attempt}").write_text(str(job.plan.micro_batch))

def kill(job, rank, meeting, born): run(job, rank, lambda: os.kill(os.getpid(), signal.SIGKILL))
def kill_always(job, rank, meeting, born): run(job, rank, lambda: os.kill(os.getpid(), signal.SIGKILL), 99)
def kill_group(job, rank, meeting, born): run(job, rank, lambda: os.kill(os.getppid(), signal.SIGKILL))
def stop(job, rank, meeting, born): run(job, rank, lambda: os.kill(os.getpid(), signal.SIGSTOP))
def bug(job, rank, meeting, born): run(job, rank, lambda: 1 // 0, 99)
def refused(job, rank, meeting, born): run(job, rank, lambda: (_ for _ in ()).throw(BadData("no rows")), 99)
def memory(job, rank, meeting, born):
    def fault():
        if job.plan.micro_batch > 2: raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
    run(job, rank, fault, 99)
class Diverged(Exception):
    exit_code = 3
def diverged(job, rank, meeting, born):
    def fault(): raise Diverged("diverged: the loss is nan at step 3")
    run(job, rank, fault, 2)
def never(job, rank, meeting, born):
    heart = Heart(Path(job.out), rank, job.attempt)
    heart.enter("joining")
    if rank == 1 and job.attempt == 1: time.sleep(60)
    run(job, rank)
def refuses_to_stop(job, rank, meeting, born):
    run(job, rank, lambda: (os.kill(os.getppid(), signal.SIGSTOP), os.kill(os.getpid(), signal.SIGSTOP)))
"""
QUICK = RecoveryRules(restarts=2, hang_seconds=0.6, backoff_seconds=0.01)


@pytest.fixture
def job(bare_job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    (tmp_path / "bodies.py").write_text(BODIES)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    return bare_job


def train(job: Job, body: str, rules: RecoveryRules = QUICK) -> Trail:
    with WarmGroup(job, f"bodies:{body}") as group:
        return supervisor.train(job, Path(job.out), rules, group)


def ended(job: Job) -> list[str]:
    return sorted(path.name for path in Path(job.out).glob("ended-*"))


@pytest.mark.parametrize(
    ("body", "cause", "cold", "said"),
    [
        ("kill", "killed", 1, "SIGKILL"),
        ("kill_group", "killed", 2, "the training group was killed by SIGKILL"),
        ("stop", "hang", 1, "rank 1 did not take a step for"),
        ("never", "never-joined", 1, "rank 1 did not come to its first step (joining)"),
    ],
)
def test_what_dies_or_hangs_is_started_again(
    job: Job, body: str, cause: str, cold: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("autoglm_ops.training.recovery.FACTOR", 2.0)
    trail = train(job, body)
    event = trail.events[0]
    assert (trail.restarts, trail.cold_starts, len(trail.events)) == (1, cold, 1)
    assert (event["cause"], event["action"], event["attempt"]) == (cause, "resume", 1)
    assert said in event["message"]
    assert {"ended-0-2", "ended-1-2"} <= set(ended(job))
    if body == "stop":
        assert "its process is stopped" in event["message"]


def test_want_of_memory_makes_the_micro_batch_smaller_and_is_written_into_the_job(job: Job) -> None:
    trail = train(job, "memory")
    assert [event["action"] for event in trail.events] == ["halve-micro-batch", "halve-micro-batch"]
    told = Job.read(Path(job.out) / "job.json")
    assert (told.plan.micro_batch, told.plan.accumulation, told.plan.global_batch) == (2, 4, 16)
    assert told.deepspeed == {"train_micro_batch_size_per_gpu": 2, "gradient_accumulation_steps": 4}
    assert [change.kind for change in told.changes] == ["micro-batch", "micro-batch"]


def test_a_new_process_does_not_meet_the_want_of_memory_again(job: Job) -> None:
    """What an Airflow retry is: the same job anew, with what is in scratch."""
    assert train(job, "memory").restarts == 2
    again = train(job, "memory")
    assert (again.restarts, Job.read(Path(job.out) / "job.json").plan.micro_batch) == (0, 2)


@pytest.mark.parametrize(
    ("body", "kind", "starts", "said"),
    [
        ("kill_always", TryAgain, 3, "gave up after 2 restarts: killed on rank 1 at step . .attempt 3.: 2 restarts in a row"),
        ("bug", AutoGLMError, 2, "ZeroDivisionError.*gave up after 1 restarts.*the same twice in a row"),
        ("refused", BadData, 1, "^no rows$"),
    ],
)
def test_recovery_is_bounded_and_gives_up_with_the_cause(
    job: Job, body: str, kind: type[Exception], starts: int, said: str
) -> None:
    with pytest.raises(kind, match=said) as caught:
        train(job, body)
    assert type(caught.value) is kind
    assert Job.read(Path(job.out) / "job.json").attempt == starts
    if isinstance(caught.value, Refused):
        assert starts == 1


def test_divergence_halves_the_rate_from_an_older_state(job: Job) -> None:
    trail = train(job, "diverged")
    assert [(event["cause"], event["action"]) for event in trail.events] == [("diverged", "roll-back")] * 2
    told = Job.read(Path(job.out) / "job.json")
    assert [change.kind for change in told.changes] == ["rate", "rate"]
    assert told.changes[0].why == "half the rate from here on, after: diverged: the loss is nan at step 3"


def test_a_group_that_does_not_answer_is_replaced(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("autoglm_ops.training.warm.PATIENCE", 0.5)
    trail = train(job, "refuses_to_stop")
    assert (trail.restarts, trail.cold_starts) == (1, 2)


def test_a_folder_that_takes_no_beats_makes_nobody_hang(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.write_bytes

    def full(path: Path, data: Any) -> int:
        if path.name == ".probe":
            raise OSError(28, "No space left on device")
        return real(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    thread = threading.Thread(target=_continue, args=(Path(job.out),))
    thread.start()
    assert train(job, "stop").restarts == 0
    thread.join()


def _continue(folder: Path) -> None:
    """Wake the stopped rank once the supervisor has had the time to take it for hung."""
    while not (stopped := [beat.pid for beat in read(folder) if supervisor._state(beat.pid) == "stopped"]):
        time.sleep(0.05)
    time.sleep(1.5)
    os.kill(stopped[0], signal.SIGCONT)
