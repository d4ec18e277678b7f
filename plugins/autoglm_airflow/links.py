"""Buttons on a task's page: the run's report, and its run in MLflow."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from airflow.sdk import BaseOperatorLink

from autoglm_airflow.command import home


class ReportLink(BaseOperatorLink):
    """The run's report.html. Airflow asks for the link when the task has ended; before `report` ran there is none."""

    name = "Report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        root = _workspace(operator)
        page = root / "out" / "report" / "report.html" if root else None
        return f"/autoglm/runs/{root.name}/report" if root and page and page.exists() else ""


class MLflowLink(BaseOperatorLink):
    """The run in MLflow's UI, once `track` has written it."""

    name = "MLflow run"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        root = _workspace(operator)
        path = root / "completed" / "track.json" if root else None
        if path is None or not path.exists():
            return ""
        facts = json.loads(path.read_text(encoding="utf-8")).get("facts", {})
        server = os.environ.get("AUTOGLM_MLFLOW_URL", "http://127.0.0.1:5000")
        run, experiment = facts.get("mlflow_run"), facts.get("mlflow_experiment", "0")
        return f"{server}/#/experiments/{experiment}/runs/{run}" if run else ""


def _workspace(operator: Any) -> Path | None:
    run = getattr(operator, "opened_run", None)
    return home() / "runs" / run if run else None
