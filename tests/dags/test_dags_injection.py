"""Whatever a DAG run's conf, id and day hold, its pod keeps its shape: every string is a value in a field of its own, or refused (threats F27)."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk.exceptions import AirflowFailException

sys.path.append(str(Path(__file__).parents[1] / "unit" / "cluster"))
from hostile_strings import hostile
from pod_standard import restricted
from test_dags_pods import rendered

from autoglm_airflow import requests
from autoglm_airflow.pods import TrainOnKubernetes
from autoglm_ops.cluster.pod import pods
from autoglm_ops.errors import AutoGLMError
from autoglm_ops.settings import load_tree, resolve
from autoglm_ops.stages import away

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/trainer:1"
PLACED = {
    "AUTOGLM__CLUSTER__BACKEND": "kubernetes",
    "AUTOGLM__CLUSTER__IMAGE": IMAGE,
    "AUTOGLM__CLUSTER__KUBERNETES__IMAGES": f'["{IMAGE}"]',
    "AUTOGLM__CLUSTER__KUBERNETES__SECRET": "team-keys",
    "AUTOGLM__CLUSTER__SECRETS": "[AWS_SECRET_ACCESS_KEY]",
}
LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?)?")


def sent(asked: Any, run: str) -> dict[str, Any]:
    """The pod of `train` as Airflow sends it, for what `requests.of` made of a form."""
    overrides = [word.removeprefix("--set=") for word in asked.arguments() if word.startswith("--set=")]
    settings = resolve(*load_tree(ROOT / "params.yaml", overrides=overrides, environ=PLACED))
    settings = settings.model_copy(update={"cluster": settings.cluster.of_team(settings.cluster.team)})
    job = away.job_of("train", settings, "s3://bucket/prefix").model_copy(
        update={"key": "cd" * 32, "attempt": 1, "command": ("python", "-m", "autoglm_ops.cluster.remote", "cd" * 32)}
    )
    [pod] = pods(job, settings.cluster.kubernetes)
    return rendered(TrainOnKubernetes(stage="train"), pod, run)


def bare(pod: dict[str, Any]) -> dict[str, Any]:
    return {**pod, "metadata": {key: value for key, value in pod["metadata"].items() if key != "labels"}}


def test_three_hundred_strings_leave_the_pod_as_it_is(pulled: Callable[..., Any]) -> None:
    def asked(text: str | None, key: str) -> Any:
        context = pulled(params={"as_of": text, "set": {} if text is None else {key: text}, "promote": None, "tune": None})
        context["dag_run"].run_id = text or "manual__1"
        return requests.of(context, {}, {}, None)

    plain, taken = sent(asked(None, ""), "manual__1"), 0
    for number, text in enumerate(hostile()):
        key = ("model.name", "cluster.team", "cluster.backend", "cluster.priority")[number % 4]
        request = asked(text, key)
        words = request.arguments()
        assert [word.partition("=")[0] for word in words] == ["--dag", "--dag-run-id", "--as-of", "--set"], "one argument each"
        try:
            made = sent(request, text)
        except (AutoGLMError, ValueError) as refused:
            assert key != "model.name" or "model.name" in str(refused)
            continue
        taken += 1
        assert restricted(made) == [] and bare(made) == bare(plain)
        assert made["metadata"]["labels"].keys() == plain["metadata"]["labels"].keys()
        assert all(LABEL.fullmatch(value) for value in made["metadata"]["labels"].values())
    assert number == 299 and taken >= 60, "a string that only names a model is a string"


@pytest.mark.parametrize("key", hostile()[::7])
def test_a_key_that_is_none_is_refused_by_name(pulled: Callable[..., Any], key: str) -> None:
    context = pulled(params={"as_of": None, "set": {f"cluster.kubernetes.{key}": 1}, "promote": None, "tune": None})
    with pytest.raises(AirflowFailException, match=r"set by the deployment|no setting's name"):
        requests.of(context, {}, {}, None)
