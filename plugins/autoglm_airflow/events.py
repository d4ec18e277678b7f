"""One JSON line per start and end of a task in $AUTOGLM_EVENTS, for whoever shows a run as it goes."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from airflow.sdk.exceptions import (
    AirflowFailException,
    AirflowSkipException,
    DagRunTriggerException,
    DownstreamTasksSkipped,
    TaskAwaitingInput,
)


@contextmanager
def told(context: Any) -> Iterator[dict[str, Any]]:
    """Tell of the task around this block. What the block puts into the yielded dict (`cached`, `reason`) is told at its end.

    States are those of Airflow: running, success, skipped, up_for_retry, failed, awaiting_input.
    """
    ti = context["ti"]
    line: dict[str, Any] = {"dag": ti.dag_id, "run": ti.run_id, "task": ti.task_id, "cached": False, "reason": ""}
    started = time.monotonic()
    _append({**line, "state": "running", "seconds": 0.0})
    state = "success"
    try:
        yield line
    except (DownstreamTasksSkipped, DagRunTriggerException):
        raise  # how an operator asks Airflow for something; the task itself has succeeded
    except TaskAwaitingInput:
        state = "awaiting_input"
        raise
    except BaseException as error:
        last = isinstance(error, AirflowFailException) or ti.try_number > ti.max_tries
        state = "skipped" if isinstance(error, AirflowSkipException) else "failed" if last else "up_for_retry"
        line["reason"] = str(error)
        raise
    finally:
        _append({**line, "state": state, "seconds": round(time.monotonic() - started, 3)})


def _append(line: dict[str, Any]) -> None:
    path = os.environ.get("AUTOGLM_EVENTS")
    if path:
        with open(path, "ab") as file:  # noqa: PTH123 - one write of one line: appends of two tasks never mix
            file.write((json.dumps(line, ensure_ascii=False, sort_keys=True) + "\n").encode())
