"""A run workspace as it stands after `report`, made by hand in milliseconds: real records, a real tiny model, real git."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from autoglm_ops.contracts.data import DatasetVersion, ValidationReport
from autoglm_ops.contracts.inputs import AsOf, RunInfo
from autoglm_ops.contracts.record import Completion, Record, StageRecord, digest_tree, write_text
from autoglm_ops.contracts.release import Champion, EvaluationReport, GateVerdict, Interval, Verdict
from autoglm_ops.contracts.training import ParallelPlan, TrainingRecord, TuningReport
from autoglm_ops.stages import graph, runner
from autoglm_ops.stages.workplace import Workplace

ROOT = Path(__file__).parents[2]
IDENTITY = ("-c", "user.name=t", "-c", "user.email=t@localhost", "-c", "init.defaultBranch=main")


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(["git", *IDENTITY, *arguments], cwd=folder, capture_output=True, text=True, check=True).stdout.strip()


NOBODY = Champion()


@dataclass(frozen=True)
class Plot:
    """What differs between two runs."""

    run: str
    champion: Champion = NOBODY
    verdict: Verdict = Verdict.PROMOTE
    day: str = "2026-01-05"
    score: float = 0.8
    seed: int = 1


def make_origin(folder: Path) -> Path:
    folder.mkdir(parents=True)
    git(folder, "init", "-q")
    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    git(folder, "add", "params.yaml")
    git(folder, "commit", "-q", "-m", "first")
    return folder


def make_workspace(origin: Path, home: Path, model: Path, plot: Plot) -> Path:
    """`home/runs/<run>` with every DVC stage's output and completion."""
    root = home / "runs" / plot.run
    git(origin, "clone", "-q", "--no-tags", str(origin), str(root))
    Workplace(run=plot.run, origin=str(origin), home=str(home)).write(root / ".workspace.json")
    _inputs(root, plot)
    for name, files in _outputs(plot).items():
        for path, record in files.items():
            if isinstance(record, Record):
                record.write(root / "out" / name / path)
            else:
                write_text(root / "out" / name / path, record)
    shutil.copytree(model, root / "out" / "train" / "model")
    (root / "out" / "evaluate" / "plots").mkdir()
    (root / "out" / "evaluate" / "plots" / "days.png").write_bytes(b"\x89PNG\r\n")
    for place, name in enumerate(graph.PIPELINE):
        _complete(root, name, plot.run, 1_000.0 + place)
    git(root, "add", "--force", "inputs")
    git(root, "commit", "-q", "-m", f"Open run {plot.run}")
    return root


def _inputs(root: Path, plot: Plot) -> None:
    plot.champion.write(root / "inputs" / "champion.json")
    AsOf(day=plot.day).write(root / "inputs" / "as_of.json")
    RunInfo(
        run=plot.run, workspace=str(root), dag="daily_retrain", dag_run_id="d", decision="run", reason="new run",
        as_of=plot.day, content_key=f"content-{plot.run}", opened=900.0,
    ).write(root / "inputs" / "run.json")  # fmt: skip


def _outputs(plot: Plot) -> dict[str, dict[str, Record | str]]:
    score = Interval(estimate=plot.score, low=plot.score - 0.02, high=plot.score + 0.02)
    floor = Interval(estimate=0.33, low=0.31, high=0.35)
    dataset = DatasetVersion(
        digest="d" * 64, rows={"gate": 500, "train": 9000, "validation": 1000}, labels=("neg", "pos"), dropped={"duplicate": 7},
        first_day="2026-01-01", last_day=plot.day, gate_days=(plot.day,), label_share={},
    )  # fmt: skip
    evaluation = EvaluationReport(
        metric="macro_f1", rows=500, candidate=score, champion=score if plot.champion.model else None,
        baselines={"majority": floor, "tfidf": score}, against_champion=None, against_majority=score, p_value_champion=None,
        p_value_majority=0.001, slices=(), confusion={}, model_bytes=1000, champion_bytes=None,
    )  # fmt: skip
    training = TrainingRecord(
        architecture="GlmForSequenceClassification", parameters=1, plan_digest="p", settings={}, steps=20, epochs=1.0, samples=640,
        tokens=9000, losses=((10, 0.7), (20, 0.5)), validation=((20, 0.8),), best_step=20, weights_sha256=f"{plot.seed:064x}",
    )  # fmt: skip
    plan = ParallelPlan(
        ranks=2, micro_batch=32, accumulation=1, zero_stage=1, precision="fp32", device="cpu", threads_per_rank=1,
        memory_bytes={"weights": 1}, fits=True, reasons=("r",),
    )  # fmt: skip
    validation = ValidationReport(
        verdict="accepted", rows_in=10, rows_out=9, quarantined={"empty-text": 1}, budget=100, expectations=()
    )
    return {
        "ingest": {"rows": "x"},
        "validate": {"report.json": validation},
        "prepare": {"dataset.json": dataset},
        "tokenize": {"meta.json": "{}"},
        "plan": {"plan.json": plan},
        "tune": {"report.json": TuningReport(
            verdict="tuned", objective="macro_f1", direction="maximize", space={}, best={"train.learning_rate": 0.002}, best_value=0.8
        )},
        "train": {"training.json": training},
        "evaluate": {"evaluation.json": evaluation, "metrics.json": f'{{"macro_f1": {plot.score}}}\n'},
        "gate": {"verdict.json": GateVerdict(verdict=plot.verdict, policy="p", reasons=("better: by 0.02",), evidence={})},
        "report": {"report.html": "<html><!-- autoglm:run --></html>\n"},
    }  # fmt: skip


def _complete(root: Path, name: str, run: str, started: float) -> None:
    folder = root / "out" / name
    outputs = {f"out/{name}/{path}": digest for path, digest in digest_tree(folder).items()}
    StageRecord(stage=name, inputs={}, outputs=outputs).write(folder / "record.json")
    measured = {"tokens_per_second": 8000.0} if name == "train" else {}
    Completion(
        stage=name, run=run, attempt=1, started=started, seconds=1.5, cached=name == "ingest", exit=0, outputs=outputs, measured=measured
    ).write(runner.completion_path(root, name))  # fmt: skip


def race(count: int, prepare: Callable[[], Callable[[], str]]) -> list[str]:
    """What the action that `prepare` makes says in each of `count` forked processes: all prepare, then all act at once."""
    gate_out, gate_in = os.pipe()
    ready_out, ready_in = os.pipe()
    children = []
    for _ in range(count):
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(gate_in)
            try:
                action = prepare()
                os.write(ready_in, b"r")
                os.read(gate_out, 1)  # returns when the parent opens the gate
                os.write(writer, action().encode())
            except BaseException as error:
                os.write(writer, repr(error).encode())
                raise
            finally:
                os._exit(0)
        os.close(writer)
        children.append((child, reader))
    for _ in range(count):
        os.read(ready_out, 1)
    os.close(gate_in)
    answers = [os.read(reader, 4096).decode() for _, reader in children]
    for child, _ in children:
        os.waitpid(child, 0)
    return answers
