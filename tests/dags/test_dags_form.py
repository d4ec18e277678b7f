"""GPUs and precision of train_on_demand's form: to the pod, to sbatch and to the plan, by the same words on each backend."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from pathlib import Path
from typing import Any, get_args

import pytest
from test_dags_injection import sent

from autoglm_airflow import requests
from autoglm_ops.cluster import slurm_batch
from autoglm_ops.planning import GPUS, make_plan
from autoglm_ops.settings import load_tree
from autoglm_ops.settings.schema import Train
from autoglm_ops.stages import asked, away, snapshot

ROOT = Path(__file__).parents[2]
SLURM = {"AUTOGLM__CLUSTER__BACKEND": "slurm"}


@pytest.fixture
def form(dags: dict[str, Any], pulled: Callable[..., Any]) -> Callable[..., Any]:
    """The request of a run of train_on_demand whose form was filled in so."""
    dag = dags["train_on_demand"]

    def filled(**values: Any) -> requests.Request:
        params = {name: copy(dag.params.get_param(name)).resolve(value) for name, value in values.items()}
        context = pulled(params={**dag.params.dump(), **params}, dag=dag)
        return requests.of(context, dag.get_task("open_run").settings, {}, False)

    return filled


def overrides(request: requests.Request) -> list[str]:
    return [word.removeprefix("--set=") for word in request.arguments() if word.startswith("--set=")]


def test_gpus_are_the_pods_and_sbatchs_and_the_plans(form: Callable[..., Any]) -> None:
    request = form(gpus=2, gpu_kind="l40s")
    [container] = sent(request, "manual__1")["spec"]["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == "2"
    settings = asked.settled(*load_tree(ROOT / "params.yaml", overrides=overrides(request), environ=SLURM))
    job = away.job_of("train", settings, "s3://bucket/prefix")
    assert "--gpus-per-node=2" in slurm_batch.words(job, settings.cluster.slurm, Path("job.sh"))
    hardware = snapshot.training_hardware(settings)
    assert (hardware.gpus, hardware.gpu_name) == (2, "l40s")


@pytest.mark.parametrize(("precision", "planned"), [("bf16", "bf16"), ("fp32", "fp32"), ("auto", "fp32")])
def test_a_precision_is_the_plans(form: Callable[..., Any], precision: str, planned: str) -> None:
    from autoglm_ops.planning import shape_of_config
    from autoglm_ops.planning.presets import MODELS

    settings = asked.settled(*load_tree(ROOT / "params.yaml", overrides=overrides(form(precision=precision)), environ={}))
    shape = shape_of_config(MODELS["smollm2-135m"], task="classification", max_length=64, labels=2)
    plan = make_plan(snapshot.hardware(), shape, batch_size=32, precision=settings.train.precision)
    assert plan.precision == planned


def test_the_choices_of_the_form_are_those_there_are(dags: dict[str, Any]) -> None:
    params = dags["train_on_demand"].params
    assert params.get_param("gpu_kind").schema["enum"] == [None, *GPUS]
    assert params.get_param("quantization").schema["enum"] == [None, *get_args(Train.model_fields["quantization"].annotation)]
    assert params.get_param("precision").schema["enum"] == [None, *get_args(Train.model_fields["precision"].annotation)]


def test_a_form_left_empty_asks_for_nothing(form: Callable[..., Any]) -> None:
    assert overrides(form()) == []
