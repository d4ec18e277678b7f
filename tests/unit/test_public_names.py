"""What users and other packages hold on to: a name that goes, or comes, is a decision and shows here."""

from __future__ import annotations

import importlib
import inspect

import typer

from autoglm_ops.cli import main
from autoglm_ops.cli.main import build
from autoglm_ops.contracts.record import Record
from autoglm_ops.stages import graph

COMMANDS = {
    "airflow", "annotate", "cluster", "data", "demo", "doctor", "down", "feedback", "launch", "ledger", "monitor", "plan", "promote", "replay", "report", "rollback", "run", "runs", "serve",
    "snapshot", "stage", "submit", "trial", "tune", "up",
}  # fmt: skip
GROUPS = {
    "data": {
        "build",
        "diff",
        "follow",
        "list",
        "listing",
        "numbers",
        "pack",
        "plan",
        "profile",
        "pull",
        "push",
        "show",
        "task",
        "track",
    },
    "cluster": {"manifests"},
    "trial": {"ask", "run"},
    "runs": {"list", "show", "prune", "gc", "open", "exec", "send", "take", "close"},
    "feedback": {"status", "export", "arms", "collect", "drift", "signals", "patch", "undo", "patches", "prune"},
}
RECORDS = {
    "Alert", "ArmRow", "AsOf", "BuildPlan", "BuiltDataset", "Champion", "CheckpointManifest", "Completion", "Counts", "DatasetPart", "DatasetVersion", "DayTally",
    "DriftOfDay", "DriftReport", "EmbeddingSample", "Estimate", "EvaluationReport", "Expectation", "FeedbackCounts", "FeedbackItem", "FeedbackSnapshot", "Folders", "GateVerdict", "HalfLife",
    "HardwareSpec", "Interval", "JobSpec", "JobStatus", "KubernetesPlace", "LabelledRow", "LaunchPlan", "LaunchRecord", "LocationProfile", "LogCommit", "ModelRef",
    "ModelShape", "PackedDataset", "ParallelPlan", "PastStudy", "PatchSet", "PlanSurvey", "PlannedPart", "Prediction", "Profile", "Promotion", "Provenance", "Quantised", "Quota", "Recipe",
    "RecoveryDecision", "RecoveryRules", "ReporterTally", "Resources", "RowSet", "RunInfo", "SearchSpacePatch", "Served", "Setting", "Signal", "SignalsOfDay",
    "SliceResult", "SourceFile", "SourceManifest", "SourceTally", "StageRecord", "StepSpec", "StudyHistory", "SuiteReport", "TokenMeta", "TrainingChange",
    "TrainingFailure", "TrainingRecord", "Trial", "TuningReport", "Unsure", "ValidationReport", "Work", "WorkResult",
}  # fmt: skip
MODULES = (
    "arrays",
    "cluster",
    "data",
    "feedback",
    "flow",
    "follow",
    "inputs",
    "launch",
    "placement",
    "production",
    "record",
    "release",
    "serving",
    "training",
)


def test_the_commands_are_these() -> None:
    group = typer.main.get_command(build())
    assert set(group.commands) == COMMANDS
    for name, commands in GROUPS.items():
        assert set(group.commands[name].commands) == commands


def test_commands_are_added_once_however_often_main_is_called() -> None:
    assert build() is build()  # a second app had every command twice, and each further call took longer


def test_a_command_is_the_same_when_it_alone_is_built() -> None:
    whole = typer.main.get_command(build()).commands
    assert {command for commands in main.GROUPS.values() for command in commands} == set(whole)
    for name, command in whole.items():
        alone = typer.main.get_command(build(name)).commands[name]
        assert (alone.help, sorted(getattr(alone, "commands", ()))) == (command.help, sorted(getattr(command, "commands", ())))
        assert [option.name for option in alone.params] == [option.name for option in command.params]


def test_every_command_says_what_it_does() -> None:
    group = typer.main.get_command(build())
    for name, command in group.commands.items():
        assert command.help and len(command.help) > 20, name


def test_the_records_are_these() -> None:
    found = set()
    for name in MODULES:
        module = importlib.import_module(f"autoglm_ops.contracts.{name}")
        own = (item for _, item in inspect.getmembers(module, inspect.isclass) if item.__module__ == module.__name__)
        found |= {item.__name__ for item in own if issubclass(item, Record) and item is not Record}
    assert found == RECORDS


def test_the_stages_are_these() -> None:
    assert graph.PIPELINE == (
        "ingest",
        "validate",
        "prepare",
        "tokenize",
        "plan",
        "tune",
        "train",
        "evaluate",
        "gate",
        "report",
    )
    assert graph.EFFECTS == ("track", "register", "promote", "deploy", "summary")
