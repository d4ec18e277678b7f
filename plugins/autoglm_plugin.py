"""Registers AutoGLM Ops with Airflow: the buttons on its tasks' pages, and the pages they lead to."""

from typing import Any

from airflow.plugins_manager import AirflowPlugin

from autoglm_airflow.links import MLflowLink, ReportLink
from autoglm_airflow.turns import Turns


async def pages(scope: Any, receive: Any, send: Any) -> None:
    """The pages' app, imported on its first request: every process of Airflow loads this file, and one serves pages."""
    from autoglm_airflow.pages import app

    await app(scope, receive, send)


class AutoGLMPlugin(AirflowPlugin):
    """Found by Airflow in the plugins folder."""

    name = "autoglm"
    operator_extra_links = [ReportLink(), MLflowLink()]
    fastapi_apps = [{"app": pages, "url_prefix": "/autoglm", "name": "AutoGLM Ops"}]
    fastapi_root_middlewares = [{"middleware": Turns, "name": "one writing request at a time, on SQLite"}]
