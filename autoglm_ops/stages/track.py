"""Effect `track`: the run's records → one MLflow run with parameters, metrics, curves, plots, report and model. Once per run key."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.data import DatasetVersion
from autoglm_ops.contracts.release import GateVerdict
from autoglm_ops.contracts.training import ParallelPlan, TrainingRecord, TuningReport
from autoglm_ops.release import tags
from autoglm_ops.settings import PLACEMENT
from autoglm_ops.stages import releasing, runner
from autoglm_ops.stages.base import Context, Outcome
from autoglm_ops.tracking.run import TrackedRun

MODEL_PATH = "model"


def run(context: Context) -> Outcome:
    """Writes the MLflow run. Raises TryAgain when MLflow is away: the run then waits in `mlflow/spool.bin`, and nothing is lost."""
    from autoglm_ops.tracking.mlflow import Tracker

    tracking = context.settings.tracking
    tracked = Tracker(tracking.uri, context.home, tracking.experiment).track_run(tracked_run(context))
    facts = {"mlflow_run": tracked.run_id, "mlflow_experiment": tracked.experiment_id, "artifacts": tracked.artifacts}
    return Outcome(facts=facts)


def tracked_run(context: Context) -> TrackedRun:
    """Everything this run's records say, in MLflow's terms. The same records give the same run."""
    training = TrainingRecord.read(context.output("train", "training.json"))
    trained = runner.require("train", context.root)
    return TrackedRun(
        key=releasing.effect_key(context),
        started=trained.started,
        params=_params(context),
        metrics={**_metrics(context), **_numbers("training", trained.measured)},
        series={"train.loss": training.losses, "validation.metric": training.validation},
        tags=_tags(context, training),
        artifacts=_artifacts(context),
        dataset=_dataset(context).digest,
    )


def _params(context: Context) -> dict[str, str]:
    """Resolved settings, what tuning laid over them, and the plan. Where things are is not part of what was done."""
    dump = context.settings.model_dump(mode="json")
    plan = ParallelPlan.read(context.output("plan", "plan.json")).model_dump(mode="json", exclude={"reasons", "memory_bytes"})
    tree = {name: value for name, value in dump.items() if name not in PLACEMENT}
    best = TuningReport.read(context.output("tune", "report.json")).best
    return {**dict(_flat(tree)), **dict(_flat({"tuned": best})), **dict(_flat({"planned": plan}))}


def _flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value and key != "space":
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", json.dumps(value, ensure_ascii=False) if isinstance(value, dict | list) else str(value)


def _metrics(context: Context) -> dict[str, float]:
    flat: dict[str, Any] = json.loads(context.output("evaluate", "metrics.json").read_text(encoding="utf-8"))
    return _numbers("evaluation", flat)


def _numbers(prefix: str, tree: Mapping[str, Any]) -> dict[str, float]:
    return {f"{prefix}.{name}": float(value) for name, value in tree.items() if isinstance(value, int | float)}


def _tags(context: Context, training: TrainingRecord) -> dict[str, str]:
    dataset = _dataset(context)
    plan = context.output("plan", "plan.json").read_text(encoding="utf-8")
    return {
        "autoglm.name": f"{dataset.last_day} {context.run[:8]}",
        "autoglm.run": context.run,
        "autoglm.dataset": dataset.digest,
        "autoglm.dataset.last_day": dataset.last_day,
        "autoglm.architecture": training.architecture,
        "autoglm.weights_sha256": training.weights_sha256,
        "autoglm.plan": plan,
        "autoglm.gate": GateVerdict.read(context.output("gate", "verdict.json")).verdict.value,
        "mlflow.source.git.commit": tags.commit_of(context.root, "HEAD") or "",
    }


def _dataset(context: Context) -> DatasetVersion:
    return DatasetVersion.read(context.output("prepare", "dataset.json"))


def _artifacts(context: Context) -> dict[str, str]:
    """Path in the MLflow run -> what lies there. The report is made later in a run, so it is optional."""
    files = {
        "plots": context.output("evaluate", "plots"),
        MODEL_PATH: context.output("train", "model"),
        "records/evaluation.json": context.output("evaluate", "evaluation.json"),
        "records/verdict.json": context.output("gate", "verdict.json"),
        "records/training.json": context.output("train", "training.json"),
        "records/dataset.json": context.output("prepare", "dataset.json"),
        "records/tuning.json": context.output("tune", "report.json"),
        "report.html": context.output("report", "report.html"),
    }
    return {place: str(path) for place, path in files.items() if Path(path).exists()}
