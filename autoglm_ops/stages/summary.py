"""Effect `summary`: the run's records → `latest/summary.json` and `latest/report.html` under $AUTOGLM_HOME."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.data import DatasetVersion, ValidationReport
from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.contracts.record import Completion, write_text
from autoglm_ops.contracts.release import EvaluationReport, GateVerdict
from autoglm_ops.contracts.training import ParallelPlan, TrainingRecord, TuningReport
from autoglm_ops.stages import graph, runner
from autoglm_ops.stages.base import Context, Outcome


def run(context: Context) -> Outcome:
    """Writes both files whole. Everything in them stands in a record of this run."""
    summary = summarise(context, time.time())
    latest = context.home / "latest"
    write_text(latest / "summary.json", json.dumps(summary, ensure_ascii=False, indent=2, allow_nan=False) + "\n")
    write_text(latest / "report.html", _page(context, summary))
    return Outcome(measured={"overhead": summary["seconds"]["overhead"]})


def summarise(context: Context, now: float) -> dict[str, Any]:
    """The summary, as of `now` (seconds since the epoch)."""
    done = _completions(context.root)
    return {
        "run": context.run,
        "dataset": _dataset(context),
        "validation": {"verdict": ValidationReport.read(context.output("validate", "report.json")).verdict},
        "tuning": _tuning(context),
        "training": _training(context, done),
        "evaluation": _evaluation(context),
        "gate": _gate(context),
        "release": _release(context, done),
        "seconds": _seconds(context, done, now),
    }


def _completions(root: Path) -> dict[str, Completion]:
    """What ran here, in the pipeline's order; an effect that was skipped has no record."""
    paths = {name: runner.completion_path(root, name) for name in graph.SPECS if name != "summary"}
    found = {name: Completion.read(path) for name, path in paths.items() if path.exists()}
    return {name: done for name, done in found.items() if done.exit == 0}


def _dataset(context: Context) -> dict[str, Any]:
    dataset = DatasetVersion.read(context.output("prepare", "dataset.json"))
    quarantined = ValidationReport.read(context.output("validate", "report.json")).quarantined
    return {"version": dataset.digest, "rows": dataset.rows, "quarantined": sum(quarantined.values())}


def _tuning(context: Context) -> dict[str, Any]:
    report = TuningReport.read(context.output("tune", "report.json"))
    return {"trials": len(report.trials), "best": report.best}


def _training(context: Context, done: dict[str, Completion]) -> dict[str, Any]:
    plan = ParallelPlan.read(context.output("plan", "plan.json"))
    trained = TrainingRecord.read(context.output("train", "training.json"))
    speed = done["train"].measured.get("tokens_per_second")  # None when DVC had the model in its cache
    told = {"ranks": plan.ranks, "zero_stage": plan.zero_stage, "steps": trained.steps, "tokens_per_second": speed}
    return told | ({"quantised": trained.quantised.model_dump(mode="json")} if trained.quantised else {})


def _evaluation(context: Context) -> dict[str, Any]:
    report = EvaluationReport.read(context.output("evaluate", "evaluation.json")).model_dump(mode="json")
    kept = {name: report[name] for name in ("metric", "candidate", "champion", "baselines")}
    return {**kept, "interval": report["against_champion"] or report["against_majority"]}


def _gate(context: Context) -> dict[str, Any]:
    verdict = GateVerdict.read(context.output("gate", "verdict.json"))
    return {"verdict": verdict.verdict.value, "reasons": list(verdict.reasons)}


def _release(context: Context, done: dict[str, Completion]) -> dict[str, Any]:
    facts = done["register"].facts if "register" in done else {}
    moved = done["promote"].facts if "promote" in done else {}
    promoted = bool(moved.get("promoted"))
    return {
        "name": facts.get("name", context.settings.release.name),
        "version": facts.get("version"),
        "alias": "champion" if promoted else None,
        "tag": moved.get("tag"),
    }


def _seconds(context: Context, done: dict[str, Completion], now: float) -> dict[str, Any]:
    """Stage work by stage, and everything else since the run was opened."""
    stages = {name: 0.0 if record.cached else record.seconds for name, record in done.items()}
    path = context.input("run")
    began = [RunInfo.read(path).opened] if path.exists() else [record.started for record in done.values()]
    return {"stages": stages, "overhead": round(max(0.0, now - min(began, default=now) - sum(stages.values())), 3)}


def _page(context: Context, summary: dict[str, Any]) -> str:
    """The run's report with what is true of this run alone: it stands in no DVC output."""
    from autoglm_ops.evaluation.report import insert_run_facts

    html = context.output("report", "report.html").read_text(encoding="utf-8")
    release, seconds = summary["release"], summary["seconds"]
    version = f"{release['name']} v{release['version']}" if release["version"] else "not registered"
    rows = [
        ("Run", summary["run"]),
        ("Version", version),
        ("Champion", "this version" if release["alias"] else "unchanged"),
        ("Git tag", release["tag"] or "none"),
        ("Stage seconds", f"{sum(seconds['stages'].values()):.1f}"),
        ("Platform overhead seconds", f"{seconds['overhead']:.1f}"),
    ]
    page: str = insert_run_facts(html, rows)
    return page
