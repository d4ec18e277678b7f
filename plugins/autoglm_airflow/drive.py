"""Runs a DAG to its end without a scheduler: `python -m autoglm_airflow.drive DAG [--conf JSON] [--logical-date D]`.

It is `dag.test()` with three differences: the DagRun has the id it is given; started again with the same id it finishes the
unfinished tasks instead of doing everything anew; and each attempt's log lies where Airflow's UI looks for it. The DagRun and
its task instances are ordinary rows of Airflow's database. When a scheduler is alive on that database, the run is handed to it
and only watched: two may not run one task.

`--until DAY` is a backfill: a run for each day from the logical date on, which may register and not promote unless its conf asks
for that. (Airflow's own backfill needs a database that takes more than one writer; with PostgreSQL, use it.)

Exit codes: 0 the DagRun succeeded, 1 it failed, 2 a wrong call, 75 another `drive` of this DAG is running, 143 it was stopped.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import FrameType
from typing import Any

from autoglm_ops.cluster import forked
from autoglm_ops.cluster.libraries import LIBRARIES
from autoglm_ops.errors import AutoGLMError, TryAgain, UsageError

STOPPED = 128 + signal.SIGTERM


def main(arguments: list[str] | None = None) -> int:
    """Parse, run, and say in one line how it ended."""
    started = time.monotonic()
    options = _parser().parse_args(arguments)
    try:
        conf = _conf(options.conf)
        with _only_one(options.dag), _warm():
            from autoglm_airflow import (
                engine,
            )  # Airflow's core: seconds of import, and it reads its configuration from the environment

            first = _moment(options.logical_date)
            if options.until is None:
                ended = engine.drive(options.dag, conf, first, options.run_id or _new_run_id())
            else:
                ended = engine.backfill(options.dag, conf, days_between(first, _moment(options.until)))
    except AutoGLMError as error:
        sys.stderr.write(f"drive: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        sys.stderr.write("drive: stopped; the same command with the same --run-id goes on where it was\n")
        return STOPPED
    for run in ended:
        sys.stdout.write(f"{run.dag} {run.run_id}: {run.state} in {run.seconds:.1f} s ({run.tasks:.1f} s of it in tasks)\n")
    sys.stdout.write(f"drive: {time.monotonic() - started:.1f} s in all\n")
    return 0 if all(run.state == "success" for run in ended) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="autoglm_airflow.drive", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("dag", help="the DAG's id")
    parser.add_argument("--conf", default="{}", help="its params, as a JSON object")
    parser.add_argument("--logical-date", help="ISO date or time; default now")
    either = parser.add_mutually_exclusive_group()
    either.add_argument("--until", metavar="DAY", help="backfill: the last day of a range that begins at the logical date")
    either.add_argument("--run-id", help="the DagRun's id; an unfinished one is gone on with")
    return parser


def _conf(text: str) -> dict[str, Any]:
    try:
        conf = json.loads(text)
    except ValueError as error:
        raise UsageError(f"--conf is not JSON: {error}: {text[:200]!r}") from error
    if not isinstance(conf, dict):
        raise UsageError(f"--conf must be a JSON object of params, but is {text[:200]!r}")
    return conf


def _moment(text: str | None) -> datetime:
    try:
        moment = datetime.fromisoformat(text) if text else datetime.now(UTC)
    except ValueError as error:
        raise UsageError(f"--logical-date {text!r} is not an ISO date or time, for example 2026-01-14") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def days_between(first: datetime, last: datetime) -> list[datetime]:
    """Midnights from the day of `first` to that of `last`, both included. Raises UsageError when there is none, or over 366."""
    start, count = datetime(first.year, first.month, first.day, tzinfo=UTC), (last.date() - first.date()).days + 1
    if not 1 <= count <= 366:
        raise UsageError(f"--until {last.date()} is {count} days from {first.date()} on; a backfill takes 1 to 366")
    return [start + timedelta(days=day) for day in range(count)]


def _new_run_id() -> str:
    return f"manual__{datetime.now(UTC).isoformat()}"


@contextmanager
def _only_one(dag: str) -> Iterator[None]:
    """A lock that the kernel lets go when we die. What a DagRun's row calls running is then known to be dead."""
    home = os.environ.get("AIRFLOW_HOME")
    if not home:
        raise UsageError("AIRFLOW_HOME is not set; `autoglm run` and `autoglm up` set it (autoglm_ops/cli/airflow.py)")
    Path(home).mkdir(parents=True, exist_ok=True)
    with (Path(home) / f"drive-{dag.replace('/', '_')}.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise TryAgain(f"another run of {dag} is being driven here; wait for it, or stop it first") from error
        yield


@contextmanager
def _warm() -> Iterator[None]:
    """The run's commands are forked from one process that has imported what they import; from one that is there already, if there is."""
    if forked.ADDRESS in os.environ:
        yield
        return
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)
    python = os.environ.get("AUTOGLM_PYTHON") or sys.executable
    with forked.zygote_of(Path(os.environ["AIRFLOW_HOME"]) / "logs" / "zygote.log", python=python) as variables:
        os.environ.update(variables)
        try:
            yield
        finally:
            os.environ.pop(forked.ADDRESS, None)


def stop_on_signals() -> None:
    """SIGTERM is Ctrl-C: both end the running task's child and leave a run that can be gone on with."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


if __name__ == "__main__":
    sys.exit(main())
