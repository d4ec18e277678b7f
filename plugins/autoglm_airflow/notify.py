"""Tell the owner of a failure: once per DAG run, however many retries, tasks and clears."""

from __future__ import annotations

import fcntl
import json
import logging
import time
from pathlib import Path
from typing import Any

from autoglm_airflow.command import home

log = logging.getLogger(__name__)


def owner_of_failure(context: Any) -> None:
    """`on_failure_callback` of every task: a line in the log and one in $AUTOGLM_HOME/notices.jsonl."""
    ti = context["ti"]
    notice = {
        "dag": ti.dag_id,
        "run": ti.run_id,
        "task": ti.task_id,
        "reason": str(context.get("exception") or "the task was ended from outside"),
        "log": ti.log_url,
        "at": time.time(),
    }
    if append_once(home() / "notices.jsonl", notice):
        log.error("NOTICE %(dag)s %(run)s: %(task)s failed: %(reason)s; log: %(log)s", notice)


def append_once(path: Path, notice: dict[str, Any]) -> bool:
    """Append `notice` unless its DAG run is in the file already. True when it was appended. Two processes at once are safe."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        file.seek(0)
        known = file.read()
        if any(_same(line, notice) for line in known.split(b"\n")):
            return False
        if known and not known.endswith(b"\n"):
            file.write(b"\n")  # whoever wrote last was killed in the middle of a line
        file.write((json.dumps(notice, ensure_ascii=False, sort_keys=True) + "\n").encode())
    return True


def _same(line: bytes, notice: dict[str, Any]) -> bool:
    try:
        other = json.loads(line)
    except ValueError:
        return False  # a torn line, or the empty one after the last
    return bool((other["dag"], other["run"]) == (notice["dag"], notice["run"]))
