"""A chain of stages in one line of a DAG file."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from airflow.sdk import BaseOperator, TriggerRule

from autoglm_airflow.assets import MODEL
from autoglm_airflow.operators import StageOperator, SummaryOperator
from autoglm_airflow.requests import deployed_cluster
from autoglm_airflow.trials import RULE, rounds

# A promotion that was not to be still gets its report; a failure before it never turns green (none_failed, not all_done).
_AFTER_A_SKIP = ("promote", "report", "summary")


def pipeline(first: BaseOperator, stages: str) -> BaseOperator:
    """Tasks for `stages` (names with blanks between) in a row after `first`. Returns the last."""
    last = first
    for name in stages.split():
        before = rounds(last) if name == "tune" else last
        last = before >> _task(name, **({"trigger_rule": RULE} if before is not last else {}))
    return last


def _task(name: str, **more: Any) -> BaseOperator:
    if name in _AFTER_A_SKIP:
        more["trigger_rule"] = TriggerRule.NONE_FAILED
    if name == "promote":
        more["outlets"] = [MODEL]
    if name == "summary":
        return SummaryOperator(**more)
    return _stage_operator(name)(stage=name, **more)


def _stage_operator(name: str) -> Callable[..., BaseOperator]:
    """Stages that `cluster` sends to Kubernetes are KubernetesPodOperators, where that is what the checkout or the deployment says."""
    cluster = deployed_cluster()
    if cluster.get("backend") != "kubernetes" or name not in cluster.get("stages", ("tune", "train")):
        return StageOperator
    from autoglm_airflow.pods import TrainOnKubernetes

    return TrainOnKubernetes
