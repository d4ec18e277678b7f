"""What every DAG file promises: its tasks and their order, when it starts, how small and how cheap to parse it is."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import AssetOrTimeSchedule, CronTriggerTimetable

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "dags").glob("*.py"))
STAGES = "ingest validate prepare tokenize plan tune train evaluate gate track register"
CHAINS = {
    "daily_retrain": f"open_run {STAGES} approval promote deploy report summary",
    "train_on_demand": f"open_run {STAGES} report summary",
    "feedback_retune": "collect drift signals patch open_run ingest validate prepare tokenize plan tune winner retrain close_run",
    "promote_model": "approval release",
    "monitor_production": "monitor alert",
    "dataset_build": "plan shards read ranges match verify settle weigh write finish",
}


@pytest.mark.parametrize(("dag_id", "chain"), CHAINS.items())
def test_tasks_stand_in_one_row(dags: dict[str, Any], dag_id: str, chain: str):
    dag = dags[dag_id]
    names = chain.split()
    assert [task.task_id for task in dag.topological_sort()] == names
    for before, after in pairwise(names):
        reads = (
            set(names) if before in ("shards", "ranges") else {after}
        )  # what a mapped task expands over is upstream of it, too
        assert after in dag.get_task(before).downstream_task_ids <= reads


def test_there_is_one_file_per_dag_and_no_other_dag(dags: dict[str, Any]):
    assert set(dags) == set(CHAINS) == {path.stem for path in FILES}


@pytest.mark.parametrize("dag_id", CHAINS)
def test_no_catchup_and_one_run_at_a_time(dags: dict[str, Any], dag_id: str):
    dag = dags[dag_id]
    assert (dag.catchup, dag.max_active_runs) == (False, 1)
    assert dag.doc_md
    assert dag.description


def test_schedules(dags: dict[str, Any]):
    starts = {"daily_retrain": ("0 0 * * *", "autoglm_dataset"), "feedback_retune": ("0 * * * *", "autoglm_production")}
    for dag_id, (cron, asset) in starts.items():
        schedule = dags[dag_id].schedule
        assert isinstance(schedule, AssetOrTimeSchedule)
        assert schedule.timetable.expression == cron
        assert [found.name for found in schedule.asset_condition.objects] == [asset]
    assert isinstance(dags["monitor_production"].schedule, CronTriggerTimetable)
    assert dags["monitor_production"].schedule.expression == "0 * * * *"
    assert dags["train_on_demand"].schedule is dags["promote_model"].schedule is None
    assert [watched.name for watched in dags["dataset_build"].schedule] == ["autoglm_raw"]


def test_daily_retrain_never_emits_the_asset_that_starts_it(dags: dict[str, Any]):
    outlets = {asset.name for task in dags["daily_retrain"].tasks for asset in task.outlets}
    assert outlets == {"autoglm_model"}


@pytest.mark.parametrize("dag_id", ["daily_retrain", "train_on_demand"])
def test_a_skip_is_passed_over_and_a_failure_is_not(dags: dict[str, Any], dag_id: str):
    rules = {task.task_id: str(task.trigger_rule.value) for task in dags[dag_id].tasks}
    assert {name for name, rule in rules.items() if rule == "none_failed"} == {"promote", "report", "summary"} & set(rules)
    assert set(rules.values()) == {"none_failed", "all_success"}


@pytest.mark.parametrize("dag_id", CHAINS)
def test_every_task_tells_its_owner_of_a_failure(dags: dict[str, Any], dag_id: str):
    for task in dags[dag_id].tasks:
        assert [callback.__name__ for callback in task.on_failure_callback] == ["owner_of_failure"], task.task_id


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_dag_file_is_short_and_imports_two_things(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= 80
    imports = {node.module for node in ast.walk(ast.parse(text)) if isinstance(node, ast.ImportFrom)}
    assert not [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import)]
    assert {name.partition(".")[0] for name in imports if name} - {"datetime"} <= {"airflow", "autoglm_airflow"}
    assert all(name == "airflow.sdk" for name in imports if name and name.startswith("airflow"))


PROBE = """
import json, runpy, sys, time
import airflow.sdk
from airflow.sdk import DAG, Asset, AssetOrTimeSchedule, BaseOperator, BaseOperatorLink, CronTriggerTimetable, Param, SkipMixin, TriggerRule
began, seconds = time.process_time(), {}
for path in sys.argv[1:]:
    started = time.process_time()
    runpy.run_path(path)
    seconds[path] = time.process_time() - started
heavy = "torch transformers mlflow dvc great_expectations deepspeed optuna pandas numpy boto3 fastapi sklearn".split()
print(json.dumps({"seconds": seconds, "heavy": [name for name in heavy if name in sys.modules]}))
"""


def test_parsing_is_cheap_and_brings_no_heavy_library():
    best: dict[str, float] = {}
    for _ in range(2):  # processor time, and the better of two: a busy machine is not a slow file
        probe = subprocess.run([sys.executable, "-c", PROBE, *map(str, FILES)], capture_output=True, text=True, check=True)
        answer = json.loads(probe.stdout.splitlines()[-1])
        assert answer["heavy"] == []
        best = {path: min(seconds, best.get(path, seconds)) for path, seconds in answer["seconds"].items()}
    assert max(best.values()) <= 0.3, best


def test_plugins_and_dags_import_only_what_the_house_allows():
    allowed = {"contracts", "cluster", "errors"}
    for path in sorted((ROOT / "plugins").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            module = node.module if isinstance(node, ast.ImportFrom) else None
            if module and module.startswith("autoglm_ops"):
                assert module.split(".")[1] in allowed, f"{path.name} imports {module}"


FORM = {
    "epochs": (1.5, [0, -1, "many", 1001]),
    "learning_rate": (3e-4, [0, -1e-3, "fast", 2]),
    "batch_size": (32, [0, 1.5, "x"]),
    "max_length": (128, [7, 8193, 1.5]),
    "tune": (False, ["yes", 1]),
    "trials": (4, [0, 1.5]),
    "precision": ("bf16", ["int8", "BF16", 16, ""]),
    "quantization": ("int8", ["int4", "INT8", 8, ""]),
    "gpus": (2, [-1, 1.5, "two", 65, True]),
    "gpu_kind": ("h100-80g", ["gtx-1080", "", 4090]),
    "model": ("glm-small", ["", 7]),
    "data_path": ("data/mine.csv", ["", 7]),
    "as_of": ("2026-01-14", ["yesterday", 20260114]),
    "set": ({"train.epochs": 1}, ["train.epochs=1", [1]]),
}


@pytest.mark.parametrize(("name", "values"), FORM.items())
def test_the_form_takes_good_values_and_refuses_bad_ones(dags: dict[str, Any], name: str, values: tuple[Any, list[Any]]):
    from airflow.sdk.exceptions import ParamValidationError

    param = dags["train_on_demand"].params.get_param(name)
    good, bad = values
    assert param.resolve(good) == good
    for value in bad:
        with pytest.raises(ParamValidationError):
            param.resolve(value)


def test_the_form_maps_to_known_settings_whose_rules_it_keeps(dags: dict[str, Any]):
    from autoglm_ops.settings.layers import known_keys

    settings = dags["train_on_demand"].get_task("open_run").settings
    assert set(settings.values()) <= set(known_keys())
    assert set(settings) <= set(dags["train_on_demand"].params)
