"""The smallest loop that runs a DagRun against Airflow's database: what `dag.test()` of Airflow 3.3 does, able to go on.

Imported by `drive` only: it needs Airflow's core, which DAG files and operators never import.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from airflow import settings
from airflow.configuration import conf as airflow_conf
from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance, clear_task_instances
from airflow.sdk import DAG, timezone
from airflow.sdk.api.client import Client
from airflow.sdk.api.datamodels._generated import TaskInstance as TaskToRun
from airflow.sdk.exceptions import ParamValidationError
from airflow.sdk.execution_time.supervisor import InProcessTestSupervisor, run_task_in_process
from airflow.serialization.serialized_objects import create_scheduler_operator
from airflow.utils.state import DagRunState, TaskInstanceState
from airflow.utils.types import DagRunTriggeredByType, DagRunType
from sqlalchemy import select
from sqlalchemy.orm import Session

from autoglm_airflow import bundle
from autoglm_airflow.command import ALONE, INTERRUPTED
from autoglm_airflow.drive import stop_on_signals
from autoglm_ops.errors import UsageError

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
_BROKEN = {TaskInstanceState.FAILED, TaskInstanceState.UPSTREAM_FAILED}
_CUT_SHORT = {
    TaskInstanceState.RUNNING, TaskInstanceState.QUEUED, TaskInstanceState.SCHEDULED, TaskInstanceState.RESTARTING,
    TaskInstanceState.UP_FOR_RETRY, TaskInstanceState.UP_FOR_RESCHEDULE, TaskInstanceState.DEFERRED,
}  # fmt: skip


@dataclass(frozen=True)
class EndedRun:
    """How a DagRun ended. `tasks`: seconds inside its task instances."""

    dag: str
    run_id: str
    state: str
    seconds: float
    tasks: float


def drive(dag_id: str, conf: dict[str, Any], logical_date: datetime, run_id: str) -> list[EndedRun]:
    """Run the DAG, then the runs its tasks triggered. Raises UsageError for an unknown DAG, bad params or a bad id."""
    bundle.migrate()
    dags = bundle.load()
    if dag_id not in dags:
        raise UsageError(f"unknown DAG {dag_id!r}; known: {', '.join(sorted(dags))}")
    session: Session = settings.Session()
    watch = bundle.scheduler_is_alive()
    run = _find(session, dag_id, run_id) or _create(session, dag_id, run_id, conf, logical_date, watch)
    ended = [_end(session, dags[dag_id], run, watch)]
    while run := _triggered(session, ended[-1]):
        ended.append(_end(session, dags[run.dag_id], run, watch))
    return ended


def backfill(dag_id: str, conf: dict[str, Any], days: list[datetime]) -> list[EndedRun]:
    """A run for each day, in order. It may not promote unless `conf` asks for that. A run id names its day: started again, it goes on."""
    bundle.migrate()
    dag = bundle.load().get(dag_id)
    asked = {"promote": False, **conf} if dag is not None and "promote" in dag.params else conf
    return [run for day in days for run in drive(dag_id, asked, day, f"manual__backfill_{day:%Y-%m-%d}")]


def _find(session: Session, dag_id: str, run_id: str) -> DagRun | None:
    return session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.run_id == run_id))


def _triggered(session: Session, ended: EndedRun) -> DagRun | None:
    """The run that RetrainOperator has left queued for a scheduler, if it did."""
    return session.scalar(
        select(DagRun).where(DagRun.run_id == f"{ended.dag}__{ended.run_id}", DagRun.state == DagRunState.QUEUED)
    )


def _create(session: Session, dag_id: str, run_id: str, conf: dict[str, Any], logical_date: datetime, watch: bool) -> DagRun:
    dag = bundle.serialized(dag_id, session)
    _refuse_unknown(conf, list(dag.params))
    taken = session.scalar(select(DagRun).where(DagRun.dag_id == dag_id, DagRun.logical_date == logical_date))
    try:
        run = dag.create_dagrun(
            run_id=run_id,
            logical_date=None if taken else logical_date,  # unique in a DAG; the day of a second run for a date is in its conf
            data_interval=None if taken else dag.timetable.infer_manual_data_interval(run_after=logical_date),
            run_after=logical_date,
            conf=conf,
            run_type=DagRunType.MANUAL,
            triggered_by=DagRunTriggeredByType.CLI,
            triggering_user_name="drive",
            state=DagRunState.QUEUED if watch else DagRunState.RUNNING,
            start_date=None if watch else timezone.utcnow(),
            session=session,
        )
    except (ParamValidationError, ValueError) as error:
        raise UsageError(f"{dag_id} refuses this run: {error}") from error
    session.commit()
    return run


def _refuse_unknown(conf: dict[str, Any], known: list[str]) -> None:
    for key in conf:
        if key not in known:
            raise UsageError(f"--conf: unknown parameter {key!r}; known: {', '.join(known)}")


def _end(session: Session, dag: DAG, run: DagRun, watch: bool) -> EndedRun:
    """Bring one run to its end and say how it went."""
    started = time.monotonic()
    if watch:
        _watch(session, run)
    else:
        _resume(session, run)
        with _alone():
            _loop(session, dag, run)
    tasks = sum(ti.duration or 0.0 for ti in run.get_task_instances(session=session))
    return EndedRun(run.dag_id, run.run_id, DagRunState(run.state).value, time.monotonic() - started, tasks)


@contextmanager
def _alone() -> Iterator[None]:
    os.environ[ALONE] = "1"
    try:
        yield
    finally:
        os.environ.pop(ALONE, None)


def _watch(session: Session, run: DagRun) -> None:
    while run.state in (DagRunState.QUEUED, DagRunState.RUNNING):
        time.sleep(1)
        session.expire_all()


def _resume(session: Session, run: DagRun) -> None:
    """Make a run that was cut short, failed or never started runnable again. What succeeded or was skipped stays as it is."""
    run.dag = bundle.serialized(run.dag_id, session)
    instances = run.get_task_instances(session=session)
    for ti in instances:
        if ti.state in _CUT_SHORT:
            ti.state = TaskInstanceState.FAILED
    broken = [ti for ti in instances if ti.state in _BROKEN]
    clear_task_instances(broken, session=session, dag_run_state=DagRunState.RUNNING)
    if broken or run.state == DagRunState.QUEUED:
        run.set_state(DagRunState.RUNNING)
    session.commit()


def _loop(session: Session, dag: DAG, run: DagRun) -> None:
    # One client for all tasks: it caches the DAG, which dag.test() reads and parses anew for each (0.2 s a task).
    client = InProcessTestSupervisor._api_client(dag)
    while run.state == DagRunState.RUNNING:
        session.expire_all()
        ready, _ = run.update_state(session=session)
        for ti in ready:
            if ti.state != TaskInstanceState.UP_FOR_RESCHEDULE:
                ti.try_number += 1
            ti.state = TaskInstanceState.SCHEDULED
            ti.scheduled_dttm = timezone.utcnow()
        session.commit()
        scheduled = [ti for ti in run.get_task_instances(session=session) if ti.state == TaskInstanceState.SCHEDULED]
        for ti in scheduled:
            _attempt(dag, ti, client)
        if not scheduled and run.state == DagRunState.RUNNING:
            time.sleep(POLL_SECONDS)  # a retry's back-off, or a person who is asked


def _attempt(dag: DAG, ti: TaskInstance, client: Client) -> None:
    """Run one attempt here. A stop ends its child, and this process after it."""
    stop_on_signals()
    with _logged(ti):
        ti.set_state(TaskInstanceState.QUEUED)
        names = ("id", "task_id", "dag_id", "run_id", "try_number", "map_index", "dag_version_id")
        task = TaskToRun(**{name: getattr(ti, name) for name in names})
        result = run_task_in_process(ti=task, task=dag.task_dict[ti.task_id], client=client)
        ti.set_state(result.ti.state)
        ti.task = create_scheduler_operator(result.ti.task)
    stop_on_signals()  # the task has set its own handler
    if INTERRUPTED.is_set():
        raise KeyboardInterrupt
    if ti.state == TaskInstanceState.DEFERRED:
        raise UsageError(
            f"{dag.dag_id}.{ti.task_id} defers to a triggerer, and there is none here; run this DAG under `autoglm up`"
        )


@contextmanager
def _logged(ti: TaskInstance) -> Iterator[None]:
    """Everything this process prints goes to the attempt's log, where the UI looks for it."""
    base = Path(airflow_conf.get("logging", "base_log_folder"))
    folder = base / f"dag_id={ti.dag_id}" / f"run_id={ti.run_id}" / f"task_id={ti.task_id}"
    if ti.map_index >= 0:
        folder /= f"map_index={ti.map_index}"
    folder.mkdir(parents=True, exist_ok=True)
    kept = [os.dup(1), os.dup(2)]
    with (folder / f"attempt={ti.try_number}.log").open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        yield
    finally:
        for number, descriptor in enumerate(kept, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)
