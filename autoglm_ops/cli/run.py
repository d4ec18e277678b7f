"""`autoglm run`: one whole retraining cycle, by the real daily_retrain DAG, with no server, GPU, key or network service."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import typer
from rich.console import Console
from rich.markup import escape

from autoglm_ops.cli.airflow import airflow_environment
from autoglm_ops.cli.children import child, ended_by_sigterm
from autoglm_ops.cli.runs import day
from autoglm_ops.cli.shared import AsJson, AsOfDay, Configs, Overrides, checkout, home, show_json
from autoglm_ops.cli.summary import render
from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.contracts.record import Completion
from autoglm_ops.stages import graph, runner, runs

DAG = "daily_retrain"


def run(as_of: AsOfDay = None, overrides: Overrides = None, configs: Configs = None, as_json: AsJson = False) -> None:
    """Run the daily_retrain DAG once, to its end: validate, version, tune, train, evaluate, gate, register, promote.

    Started again after a kill, it goes on with its own work; with nothing changed it says so and ends.
    Leaves $AUTOGLM_HOME/latest/summary.json and report.html.
    """
    console = Console(stderr=as_json, highlight=False)
    started = time.monotonic()
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%f")
    request = runs.Request(DAG, f"manual__{stamp}", day(as_of), tuple(overrides or ()), tuple(configs or ()))
    info = runs.open_run(request, checkout(), home())
    console.print(f"run {info.run} as of {info.as_of}: {info.reason}", soft_wrap=True)
    if info.decision == "run":
        code = drive(RunInfo.read(Path(info.workspace) / "inputs" / "run.json"), console)
        if code:
            raise typer.Exit(code)
    show_summary(console, as_json=as_json)
    console.print(f"{time.monotonic() - started:.0f} s in all")


def show_summary(console: Console, *, as_json: bool) -> None:
    """The last run's summary: a table and the report's path, or JSON."""
    path = home() / "latest" / "summary.json"
    if not path.exists():
        console.print("no summary yet: no run has finished here")
        return
    summary = json.loads(path.read_text(encoding="utf-8"))
    if as_json:
        show_json(summary)
        return
    render(summary, console)
    console.print(f"report: {path.with_name('report.html')}", soft_wrap=True)


def drive(info: RunInfo, console: Console) -> int:
    """Run the DAG to its end in a child, a line per task as it goes. Returns the exit code of the stage that failed, or 0."""
    folder = home() / "logs"
    folder.mkdir(parents=True, exist_ok=True)
    log, events = folder / f"{info.dag_run_id}.log", folder / f"{info.dag_run_id}.{os.getpid()}.events"
    events.touch()
    environment = {**os.environ, **airflow_environment(home(), checkout()), "AUTOGLM_EVENTS": str(events)}
    command = [sys.executable, "-m", "autoglm_airflow.drive", info.dag, "--run-id", info.dag_run_id]
    command += ["--conf", json.dumps({"as_of": info.as_of})]
    with ended_by_sigterm(), child(command, log, environment) as process:
        for event in _follow(events, process, console):
            _show(event, console)
    if process.returncode == 0:
        return 0
    return _explain(info, log, console)


def _follow(events: Path, process: subprocess.Popen[bytes], console: Console) -> Iterator[dict[str, Any]]:
    """Events as operators append them, until the child has ended and all is read."""
    running = "starting Airflow"
    with events.open(encoding="utf-8") as file, console.status(running) as status:
        while True:
            ended = process.poll() is not None
            while line := file.readline():
                event = json.loads(line)
                if event["state"] == "running":
                    status.update(f"{event['task']} …")
                else:
                    yield event
            if ended:
                return
            time.sleep(0.1)


def _show(event: dict[str, Any], console: Console) -> None:
    colour = {"success": "green", "failed": "red", "skipped": "yellow"}.get(event["state"], "cyan")
    how = "cached" if event.get("cached") else event["state"]
    first, *more = (event.get("reason") or "").split("; ")
    reason = (
        f"  {first[:100]}" + (f" (+{len(more)} more)" if more else "") if event["state"] != "failed" else f"  {event['reason']}"
    )
    console.print(f"  [{colour}]{how:8}[/] {event['task']:12} {event['seconds']:6.1f} s{escape(reason)}", soft_wrap=True)


def _explain(info: RunInfo, log: Path, console: Console) -> int:
    """Say which stage failed, why, and where its evidence is. Returns its exit code."""
    root = Path(info.workspace)
    paths = [path for name in graph.SPECS if (path := runner.completion_path(root, name)).exists()]
    failed = [record for path in paths if (record := Completion.read(path)).exit != 0]
    for record in failed:
        console.print(
            f"[red]{record.stage} ended with exit {record.exit}[/]: {escape('; '.join(record.reasons))}", soft_wrap=True
        )
        kept = root / "refused" / record.stage
        if kept.exists():
            console.print(f"what it saw: {kept}", soft_wrap=True)
    console.print(f"the DAG run failed; its log: {log}", soft_wrap=True)
    return failed[0].exit if failed else 1


def add_to(app: typer.Typer) -> None:
    app.command()(run)
