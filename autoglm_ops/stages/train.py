"""Stage `train`: tokens, plan and the tuned settings → a published model folder and training.json. DeepSpeed does the work, in ranks."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path

import numpy as np

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.feedback import EmbeddingSample
from autoglm_ops.contracts.training import ParallelPlan, RecoveryRules, TrainingRecord, TuningReport
from autoglm_ops.monitoring.embedding import bounded
from autoglm_ops.settings import Settings
from autoglm_ops.stages import folders
from autoglm_ops.stages.base import Context, Outcome
from autoglm_ops.training import artifact, initial, nodes, supervisor
from autoglm_ops.training.job import Job
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.settings import overlay

MOST_LOST = 0.01
"""Macro-F1 that the int8 model may lose on validation before the run says so."""


def run(context: Context) -> Outcome:
    """Writes model/ (weights, config, tokenizer, reference.json, embeddings.json, manifest.json) and training.json.

    Ranks that die or hang are started again (settings `recovery`). Raises UsageError, BadData, Refused (the run diverged, whatever the
    rate) or TryAgain (recovery gave up; scratch keeps the checkpoints).
    """
    started = time.monotonic()
    best = TuningReport.read(context.output("tune", "report.json")).best
    settings = Settings.model_validate(overlay(context.settings.model_dump(mode="json"), best))
    work = context.scratch / "group"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    job = _job(context, settings, work)
    trail = supervisor.train(job, work, nodes.here().rules(job.rules))
    if not nodes.here().first:  # what was learned is written by the machine of rank 0
        return Outcome(reasons=(f"node {nodes.here().index} of {nodes.here().nodes}: the model is with node 0",))
    record = TrainingRecord.read(work / "training.json")
    _publish(context, work, record, job)
    record.write(context.out / "training.json")
    measured = json.loads((work / "measured.json").read_text(encoding="utf-8"))
    shutil.rmtree(context.scratch)  # the model is published: its checkpoints have served
    facts = {
        "steps": record.steps,
        "best_step": record.best_step,
        "weights_sha256": record.weights_sha256,
        "ranks": job.plan.ranks,
    }
    seconds = round(time.monotonic() - started, 3)
    reasons = tuple(f"{change.kind}: from step {change.step}, {change.why}" for change in record.changes)
    return Outcome(
        reasons=(*reasons, *_better(record), *_lost(record)),
        facts=facts,
        measured={**measured, **trail.as_measured(), "seconds": seconds},
    )


def _better(record: TrainingRecord) -> tuple[str, ...]:
    """Says when weights on the way to the mean that is published did better than it."""
    if not record.averaged_from or len(record.validation) < 2:
        return ()
    *before, (_, published) = record.validation
    step, best = max(before, key=lambda pair: pair[1])
    if best <= published:
        return ()
    return (
        f"the mean of the weights from step {record.averaged_from} on scores {published:.4f} on validation, and those at step {step} "
        f"scored {best:.4f}; train.average = 0 publishes the best",
    )


def _lost(record: TrainingRecord) -> tuple[str, ...]:
    """Says when the int8 model that is published lost more than it may; the gate judges it all the same."""
    made = record.quantised
    if made is None or made.before - made.after <= MOST_LOST:
        return ()
    return (
        f"the int8 model scores {made.after:.4f} on validation and its full-precision weights {made.before:.4f}, more than {MOST_LOST} "
        "apart; train.quantization = none publishes those",
    )


def _job(context: Context, settings: Settings, work: Path) -> Job:
    meta = TokenMeta.read(context.output("tokenize", "meta.json"))
    train, model = settings.train.model_dump(), folders.model(context, settings, meta)
    initial.check(settings.train.initial, model)
    config = json.loads(context.output("plan", "deepspeed.json").read_text(encoding="utf-8"))
    config["gradient_clipping"] = train["gradient_clip"]
    config["optimizer"]["params"] |= {"lr": train["learning_rate"], "weight_decay": train["weight_decay"]}
    return Job(
        tokens=str(context.output("tokenize")),
        out=str(work),
        scratch=str(context.scratch / "checkpoints"),
        plan=ParallelPlan.read(context.output("plan", "plan.json")),
        deepspeed=config,
        model=model,
        recipe=Recipe.of(train, rows=meta.rows["train"], seed=settings.seed, pretrained=model.folder is not None),
        rules=RecoveryRules(**settings.recovery.model_dump()),
        quantization=settings.train.quantization,
        settings={"train": train, "model": settings.model.model_dump(), "seed": settings.seed},
    )


def _sample(work: Path) -> EmbeddingSample:
    """What the trained model makes of validation rows, which it did not learn from: what production is compared with."""
    vectors = np.load(work / "embeddings.npy", allow_pickle=False)
    rows = np.round(bounded(vectors).astype(np.float64), 4).tolist()
    return EmbeddingSample(width=vectors.shape[1], vectors=tuple(tuple(row) for row in rows))


def _publish(context: Context, work: Path, record: TrainingRecord, job: Job) -> None:
    staged = context.out / "model.staged"
    shutil.copytree(work / "weights", staged)
    for path in sorted(context.output("tokenize", "tokenizer").iterdir()):
        shutil.copyfile(path, staged / path.name)
    shutil.copyfile(context.output("prepare", "reference.json"), staged / "reference.json")
    _sample(work).write(staged / "embeddings.json")
    artifact.publish(
        staged,
        context.out / "model",
        architecture=record.architecture,
        labels=job.model.labels,
        max_length=job.model.max_length,
    )
