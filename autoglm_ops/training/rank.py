"""One rank's work: join, build, continue or begin, train; rank 0 writes what came out."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers.utils.logging import disable_progress_bar

from autoglm_ops.contracts.arrays import TokenArrays
from autoglm_ops.contracts.record import Record, digest_path
from autoglm_ops.contracts.training import TrainingChange, TrainingRecord
from autoglm_ops.training import activations, allocator, checkpoint, int8, mean, smaller
from autoglm_ops.training.beat import Heart
from autoglm_ops.training.callbacks.beats import Beats
from autoglm_ops.training.callbacks.checkpoints import Checkpoints
from autoglm_ops.training.callbacks.pace import Pace
from autoglm_ops.training.callbacks.progress import Bar
from autoglm_ops.training.engine import DeepSpeedEngine, deterministic, join, leave
from autoglm_ops.training.engine import warm as import_for
from autoglm_ops.training.initial import start
from autoglm_ops.training.job import AnyJob, Job
from autoglm_ops.training.models import build, preload
from autoglm_ops.training.pooled import of_some
from autoglm_ops.training.progress import Progress
from autoglm_ops.training.publication import Site
from autoglm_ops.training.rows import Rows, fit

if TYPE_CHECKING:
    from autoglm_ops.training.engines import AnyEngine

log = logging.getLogger(__name__)


class Measured(Record):
    """Times and rates of one run: `measured.json`, never part of an output."""

    start_seconds: float
    build_seconds: float
    step_seconds: float
    kept_step_seconds: float
    """Of the steps this result stands on, those of earlier attempts included; what was lost and done again counts once."""
    evaluation_seconds: float
    save_seconds: float
    tokens_per_second: int
    resumed_at_step: int
    checkpoints: int
    """How many were taken; `checkpoint_stall_seconds` is what training waited for them."""
    checkpoints_lost: int
    checkpoint_stall_seconds: float


def warm(job: Job) -> None:
    """Import what the ranks of `job` will need, once, before they are forked: two thousand modules, most of a restart otherwise."""
    import_for(job.deepspeed)
    preload(job.model)


def joined(job: AnyJob, rank: int, meeting: Path) -> Heart:
    """Take this rank's place in the group, as every kind of job does it; returns the heart that beats from here on, "building"."""
    torch.set_num_threads(job.plan.threads_per_rank)
    allocator.settle(job.plan)
    deterministic(job.plan.device)
    heart = Heart(Path(job.out), rank, job.attempt)
    heart.enter("joining")
    join(rank, job.plan.ranks, job.plan.device, meeting)
    heart.enter("building")
    return heart


def work(job: Job, rank: int, meeting: Path, born: float) -> None:
    """Train as rank `rank`. `born` is the monotonic time the group's process began."""
    heart = joined(job, rank, meeting)
    started = time.monotonic()
    train = TokenArrays.open(Path(job.tokens), "train")
    module = start(build(job.model, job.recipe.seed), job.recipe.initial, job.model, train)
    parameters = sum(parameter.numel() for parameter in module.parameters())
    engine = DeepSpeedEngine(activations.apply(module, job.plan), job.recipe, job.deepspeed, pulse=heart.beat)
    progress = resumed_from(job, engine, site_of(job, engine, meeting))
    before, resumed = progress.tokens, progress.step
    built = time.monotonic()
    rows = Rows(
        train,
        TokenArrays.open(Path(job.tokens), "validation"),
        job.model.pad_id,
        len(job.model.labels),
    )
    steps_before = progress.seconds["steps"]
    site = site_of(job, engine, meeting)
    kept = Checkpoints(
        site.root,
        site.key,
        engine,
        site=site,
        pace=Pace(job.rules.checkpoint_steps, job.recipe.report, job.rules.checkpoint_seconds),
        collect=engine.collect,
    )
    heard = [Beats(heart), Bar(rank == 0), kept]
    fit(engine, rows, job.recipe, callbacks=heard, progress=progress)
    saving = time.monotonic()
    heart.enter("saving")
    if rank == 0:
        _write(job, module, progress, parameters, rows, heart)
        seconds = progress.seconds["steps"] - steps_before
        Measured(
            start_seconds=round(started - born, 3),
            build_seconds=round(built - started, 3),
            step_seconds=round(seconds, 3),
            kept_step_seconds=round(progress.seconds["steps"], 3),
            evaluation_seconds=round(progress.seconds["evaluations"], 3),
            save_seconds=round(time.monotonic() - saving, 3),
            tokens_per_second=round((progress.tokens - before) / max(seconds, 1e-9)),
            resumed_at_step=resumed,
            checkpoints=kept.taken,
            checkpoints_lost=kept.failed + kept.left_out,
            checkpoint_stall_seconds=round(kept.stall, 6),
        ).write(Path(job.out) / "measured.json")
    heart.enter("done")
    leave()


def site_of(job: AnyJob, engine: AnyEngine, meeting: Path) -> Site:
    """Where this rank's part of a checkpoint belongs."""
    return Site(Path(job.scratch), job.key(), engine.rank, engine.ranks, engine.layout, meeting.parent.name, engine.twin)


def resumed_from(job: AnyJob, engine: AnyEngine, site: Site) -> Progress:
    """Where the newest checkpoint left off, or the beginning; with what recoveries changed since applied."""
    found = checkpoint.newest_of_all(site, engine.add) if engine.resumable else None
    progress = found.progress if found else Progress()
    if found:
        engine.restore({}, found.state)
        log.info("continuing from the checkpoint at step %d of %d", progress.step, job.recipe.steps)
    if found and found.layout != site.laid_out:
        why = f"continued on {site.laid_out} what was saved on {found.layout}; equal within rounding"
        _changed(progress, TrainingChange(number=0, kind="layout", why=why))
    seen = max((int(change["number"]) for change in progress.changes), default=0)
    for change in job.changes:
        if change.number > seen:
            progress.scale *= 0.5 if change.kind == "rate" else 1.0
            _changed(progress, change)
    return progress


def _changed(progress: Progress, change: TrainingChange) -> None:
    progress.changes.append(change.model_copy(update={"step": progress.step}).model_dump(mode="json"))


def _write(job: Job, module: Any, progress: Progress, parameters: int, rows: Rows, heart: Heart) -> None:
    folder = Path(job.out) / "weights"
    module.config._name_or_path = ""  # where a pretrained model was read from is this machine's business
    disable_progress_bar()
    whole = type(module)(module.config).eval()
    whole.load_state_dict(progress.best)  # first, since save_pretrained takes the weights out of the dict it is given
    module.save_pretrained(folder, state_dict=progress.best, max_shard_size="1000GB")
    quantised = smaller.publish_int8(folder, whole, rows, heart.beat) if job.quantization == "int8" else None
    np.save(Path(job.out) / "embeddings.npy", of_some(whole, rows.validation, rows.pad_id))
    per_epoch = job.plan.global_batch
    TrainingRecord(
        architecture=type(module).__name__,
        parameters=parameters,
        plan_digest=job.plan.fingerprint(),
        settings=job.settings,
        steps=progress.step,
        epochs=round(progress.samples / max(1, _rows(job) // per_epoch * per_epoch), 6),
        samples=progress.samples,
        tokens=progress.tokens,
        losses=tuple(progress.losses),
        validation=tuple(progress.validation),
        best_step=progress.best_step,
        averaged_from=mean.first(job.recipe, progress.step),
        weights_sha256=digest_path(folder / (int8.FILE if quantised else int8.WHOLE)),
        changes=tuple(TrainingChange(**change) for change in progress.changes),
        quantised=quantised,
    ).write(Path(job.out) / "training.json")


def _rows(job: Job) -> int:
    return len(TokenArrays.open(Path(job.tokens), "train"))
