"""Registers AutoGLM Ops with Airflow: the links on its tasks' pages, and the pages they lead to."""

from airflow.plugins_manager import AirflowPlugin

from autoglm_airflow.links import MLflowLink, ReportLink


class AutoGLMPlugin(AirflowPlugin):
    name = "autoglm"
    operator_extra_links = [ReportLink(), MLflowLink()]  # noqa: RUF012 - Airflow's own declaration
