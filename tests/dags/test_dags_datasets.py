"""A build's plan before Airflow's own limits."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

from autoglm_airflow.datasets import PlanBuildOperator


@pytest.mark.parametrize("most", [None, 3])
def test_more_shards_than_airflow_maps_over_are_said_when_they_are_counted(
    most: int | None, pulled: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The task after the plan had failed, over the length of an XCom."""
    if most is not None:
        monkeypatch.setenv("AIRFLOW__CORE__MAX_MAP_LENGTH", str(most))
    most = most or 1024
    context = pulled(params={"location": None, "set": {}}, dag_run=SimpleNamespace(conf={}))
    operator = PlanBuildOperator(task_id="plan")
    for shards in (most, most + 1):
        answer = {"work": "w", "shards": shards}
        monkeypatch.setattr(PlanBuildOperator, "answer", lambda *_, answer=answer: answer)
        if shards == most:
            assert operator.work(context, {}) == answer
            continue
        with pytest.raises(AirflowFailException, match=rf"{shards} shards .* is {most} .*flow\.shard_mb"):
            operator.work(context, {})
