"""What recoveries of a run decided stands beside its checkpoints, so that a new process (a task tried again, another pod) begins with it:
it does not meet the want of memory again that a smaller micro-batch cured, nor number a new change like an old one."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.record import write_text
from autoglm_ops.contracts.training import ParallelPlan, TrainingChange
from autoglm_ops.training.job import AnyJob
from autoglm_ops.training.kept import newest_first

log = logging.getLogger(__name__)

NAME = "changes.json"


def note(job: AnyJob) -> None:
    """Write `job`'s changes down. A disk that does not take them costs a later process the same failures again, no more."""
    told = {"key": job.key(), "changes": [change.model_dump(mode="json") for change in job.changes]}
    try:
        Path(job.scratch).mkdir(parents=True, exist_ok=True)
        write_text(Path(job.scratch) / NAME, json.dumps(told, indent=2) + "\n")
    except OSError as error:
        log.warning("%s could not be written (%s): a new process would not know what recovery changed", NAME, error)


def recalled(job: AnyJob) -> AnyJob:
    """`job` with the changes that an earlier process of the same run decided, as far as its scratch folder tells.

    The newest checkpoint is asked too: it alone comes along to another machine.
    """
    root = Path(job.scratch)
    told = max((_read(path, job.key()) for path in _places(root)), key=len, default=())
    if len(told) <= len(job.changes):
        return job
    log.warning("an earlier attempt of this run changed it, which stands: %s", "; ".join(change.why for change in told))
    job = job.model_copy(update={"changes": told})
    rows = min((change.micro_batch for change in told if change.micro_batch), default=job.plan.micro_batch)
    fits = rows < job.plan.micro_batch and job.plan.micro_batch % rows == 0
    return with_plan(job, reduced(job.plan, rows)) if fits else job


def reduced(plan: ParallelPlan, rows: int) -> ParallelPlan:
    """The plan with micro-batches of `rows`, a divisor of what it has, and the same global batch."""
    return plan.model_copy(update={"micro_batch": rows, "accumulation": plan.accumulation * (plan.micro_batch // rows)})


def with_plan(job: AnyJob, plan: ParallelPlan) -> AnyJob:
    """`job` on a plan that differs in micro-batch and accumulation."""
    config = job.deepspeed | {
        "train_micro_batch_size_per_gpu": plan.micro_batch,
        "gradient_accumulation_steps": plan.accumulation,
    }
    return job.model_copy(update={"plan": plan, "deepspeed": config})


def _places(root: Path) -> list[Path]:
    return [root / NAME, *(folder / "progress.json" for folder in newest_first(root)[:1])]


def _read(path: Path, key: str) -> tuple[TrainingChange, ...]:
    """The numbered changes in a file, none when it is another run's or cannot be read."""
    try:
        told: dict[str, Any] = json.loads(path.read_bytes())
        changes = tuple(TrainingChange(**change) for change in told["changes"]) if told["key"] == key else ()
    except (OSError, ValueError, KeyError, TypeError):
        return ()
    return tuple(change for change in changes if change.number)
