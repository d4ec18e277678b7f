"""A new process of a run begins with what earlier ones decided."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoglm_ops.contracts.training import RecoveryDecision, TrainingFailure
from autoglm_ops.training import standing
from autoglm_ops.training.job import Job
from autoglm_ops.training.kept import name_of
from autoglm_ops.training.recovery import changed


@pytest.fixture
def job(bare_job: Job) -> Job:
    return bare_job


def twice_smaller(job: Job) -> Job:
    failure = TrainingFailure(attempt=1, cause="out-of-memory", rank=0, step=0, kept=0, resumed=0, message="")
    for _ in range(2):
        job = changed(job, RecoveryDecision(action="halve-micro-batch", reason=""), failure)  # type: ignore[assignment]
    return job


def test_a_new_process_has_the_smaller_micro_batch_and_the_same_global_batch(job: Job) -> None:
    smaller = twice_smaller(job)
    standing.note(smaller)
    again = standing.recalled(job)
    assert (again.plan, again.deepspeed, again.changes) == (smaller.plan, smaller.deepspeed, smaller.changes)
    assert (again.plan.micro_batch, again.plan.accumulation, again.plan.global_batch, again.attempt) == (2, 4, 16, 1)
    assert standing.recalled(again) == again


def test_on_another_machine_the_checkpoint_tells_it(job: Job) -> None:
    smaller = twice_smaller(job)
    folder = Path(job.scratch) / name_of(7)
    folder.mkdir(parents=True)
    told = {"key": job.key(), "changes": [change.model_dump(mode="json") for change in smaller.changes]}
    (folder / "progress.json").write_text(json.dumps(told))
    assert standing.recalled(job).plan == smaller.plan


@pytest.mark.parametrize("content", ["", "{", "[]", '{"key": "another", "changes": []}', '{"changes": [{"number": "x"}]}'])
def test_what_is_another_runs_or_unreadable_changes_nothing(job: Job, content: str) -> None:
    Path(job.scratch).mkdir()
    (Path(job.scratch) / standing.NAME).write_text(content)
    assert standing.recalled(job) == job
    other = job.model_copy(update={"recipe": job.recipe.model_copy(update={"seed": 9})})
    standing.note(twice_smaller(other))
    assert standing.recalled(job) == job


def test_a_folder_that_takes_no_note_stops_nobody(job: Job, caplog: pytest.LogCaptureFixture) -> None:
    Path(job.scratch).write_text("a file where the folder should be")
    standing.note(twice_smaller(job))
    assert "could not be written" in caplog.text
