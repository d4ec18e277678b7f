"""The run on one page: report.html, self-contained, and report.md."""

from __future__ import annotations

from autoglm_ops.contracts.data import DatasetVersion, ValidationReport
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.record import write_text
from autoglm_ops.contracts.release import Champion, EvaluationReport, GateVerdict
from autoglm_ops.contracts.training import ParallelPlan, TrainingRecord, TuningReport
from autoglm_ops.evaluation import plots
from autoglm_ops.evaluation.page import Material
from autoglm_ops.evaluation.report import render_html, render_markdown
from autoglm_ops.stages.base import Context, Outcome
from autoglm_ops.tuning.importance import importance


def run(context: Context) -> Outcome:
    """Writes both files."""
    material = _material(context)
    write_text(context.out / "report.html", render_html(material, _images(context, material)))
    write_text(context.out / "report.md", render_markdown(material))
    return Outcome(facts={"verdict": material.verdict.verdict.value})


def _material(context: Context) -> Material:
    return Material(
        validation=ValidationReport.read(context.output("validate", "report.json")),
        dataset=DatasetVersion.read(context.output("prepare", "dataset.json")),
        plan=ParallelPlan.read(context.output("plan", "plan.json")),
        tuning=TuningReport.read(context.output("tune", "report.json")),
        training=TrainingRecord.read(context.output("train", "training.json")),
        evaluation=EvaluationReport.read(context.output("evaluate", "evaluation.json")),
        verdict=GateVerdict.read(context.output("gate", "verdict.json")),
        champion=Champion.read(context.input("champion")),
        patches=PatchSet.read(context.input("patches")),
    )


def _images(context: Context, material: Material) -> dict[str, bytes]:
    """The evaluation's plots as they lie there, and those of tuning and training."""
    drawn = {path.stem: path.read_bytes() for path in sorted(context.output("evaluate", "plots").glob("*.png"))}
    if material.tuning.trials:
        drawn["trials"] = plots.trials(material.tuning)
        drawn |= plots.study(material.tuning, importance(material.tuning))
    return drawn | {"training": plots.training(material.training)}
