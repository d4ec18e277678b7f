"""One rank's work for a causal LM: join, build, continue or begin, train; rank 0 writes weights, adapters and records."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any

import torch
from transformers.utils.logging import disable_progress_bar

from autoglm_ops.contracts.record import Record
from autoglm_ops.contracts.training import TrainingChange
from autoglm_ops.training import activations
from autoglm_ops.training.beat import Heart
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.callbacks.beats import Beats
from autoglm_ops.training.callbacks.catalog import made
from autoglm_ops.training.callbacks.checkpoints import Checkpoints
from autoglm_ops.training.callbacks.deadline import Deadline
from autoglm_ops.training.callbacks.progress import Bar
from autoglm_ops.training.callbacks.spooled import Spooled
from autoglm_ops.training.engine import DeepSpeedEngine, deterministic, join, leave
from autoglm_ops.training.engine import warm as import_for
from autoglm_ops.training.lm_job import LOSSES, LmJob, resident
from autoglm_ops.training.loop import run
from autoglm_ops.training.packed import PackedFeed, PackedJudge, PackedRows
from autoglm_ops.training.packing import packs
from autoglm_ops.training.plain import put_back
from autoglm_ops.training.progress import Progress
from autoglm_ops.training.publication import Site
from autoglm_ops.training.rank import resumed_from, site_of

log = logging.getLogger(__name__)


class Trained(Record):
    """`trained.json`: what the ranks did. Only what the same config, data and ranks always give.

    dtype: of the weights that were trained, as they were found on rank 0 after the last step. first_value: the validation loss before
    the first step.
    """

    architecture: str
    parameters: int
    trained: int
    dtype: str
    optimizer: str
    packed: bool
    steps: int
    samples: int
    tokens: int
    first_value: float
    losses: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]
    best_step: int
    best_value: float
    stopped: str
    changes: tuple[TrainingChange, ...] = ()
    """What recoveries changed; empty where the weights are an unbroken run's."""


class Clocked(Record):
    """`measured.json`: times and rates of this machine."""

    start_seconds: float
    build_seconds: float
    step_seconds: float
    evaluation_seconds: float
    tokens_per_second: float
    resumed_at_step: int


def warm(job: LmJob) -> None:
    """Import what the ranks of `job` will need, once, before they are forked."""
    import_for(job.deepspeed)


def work(job: LmJob, rank: int, meeting: Path, born: float) -> None:
    """Train as rank `rank`. `born` is the monotonic time the group's process began."""
    torch.set_num_threads(job.plan.threads_per_rank)
    deterministic(job.plan.device)
    heart = Heart(Path(job.out), rank, job.attempt)
    heart.enter("joining")
    join(rank, job.plan.ranks, job.plan.device, meeting)
    heart.enter("building")
    started = time.monotonic()
    module = job.model.build(job.recipe.seed)
    packed = packs(module, job.model.vocabulary)
    objective = LOSSES.get(job.loss)(job.recipe.label_smoothing)
    engine = DeepSpeedEngine(activations.apply(module, job.plan), job.recipe, job.deepspeed, objective, pulse=heart.beat)
    site = site_of(job, engine, meeting)
    progress = resumed_from(job, engine, site)
    start = (progress.step, progress.tokens, progress.seconds["steps"])
    judge = PackedJudge(PackedRows(Path(job.rows) / "validation"), objective, job.model.pad_id, packed)
    feed = PackedFeed(PackedRows(Path(job.rows) / "train"), job.recipe, engine, job.model.pad_id, packed)
    if progress.step == 0:
        progress.notes[FIRST] = [judge.score(engine, 0)]
    built = time.monotonic()
    run(engine, feed, judge, job.recipe, callbacks=[Beats(heart), *_callbacks(job, engine, module, site)], progress=progress)
    heart.enter("saving")
    if rank == 0:
        _write(job, module, progress, packed)
        seconds = progress.seconds["steps"] - start[2]
        Clocked(
            start_seconds=round(started - born, 3),
            build_seconds=round(built - started, 3),
            step_seconds=round(seconds, 3),
            evaluation_seconds=round(progress.seconds["evaluations"], 3),
            tokens_per_second=round((progress.tokens - start[1]) / max(seconds, 1e-9), 1),
            resumed_at_step=start[0],
        ).write(Path(job.out) / "measured.json")
    heart.enter("done")
    leave()


FIRST = "first-value"


def _callbacks(job: LmJob, engine: DeepSpeedEngine, module: Any, site: Site) -> list[Callback]:
    heard: list[Callback] = [Bar(engine.rank == 0)]
    heard += [made(name, options, engine, Path(job.out)) for name, options in job.callbacks]
    if engine.rank == 0:
        trained = sum(parameter.numel() for parameter in module.parameters())
        heard.append(Spooled(resident(job.scratch), trained, job.plan, peak=job.peak_flops))
    heard.append(
        Checkpoints(
            site.root,
            site.key,
            engine,
            site=site,
            every=job.rules.checkpoint_steps,
            marks=job.recipe.report,
            collect=engine.collect,
        )
    )
    return [*heard, Deadline(job.deadline, engine)] if job.deadline else heard


def _write(job: LmJob, module: Any, progress: Progress, packed: bool) -> None:
    sizes = [(_size(parameter), parameter.requires_grad) for parameter in module.parameters()]
    learned = next(parameter for parameter in module.parameters() if parameter.requires_grad)
    plain = module.get_base_model() if job.model.lora else module
    Trained(
        architecture=type(plain).__name__,
        parameters=sum(size for size, _ in sizes),
        trained=sum(size for size, trains in sizes if trains),
        dtype=str(learned.dtype).removeprefix("torch."),
        optimizer=str(job.deepspeed["optimizer"]["type"]),
        packed=packed,
        steps=progress.step,
        samples=progress.samples,
        tokens=progress.tokens,
        first_value=round(progress.notes[FIRST][0], 6),
        losses=tuple(progress.losses),
        validation=tuple(progress.validation),
        best_step=progress.best_step,
        best_value=progress.best_score,
        stopped=progress.stop,
        changes=tuple(TrainingChange(**change) for change in progress.changes),
    ).write(Path(job.out) / "trained.json")
    _weights(job, learned.dtype, progress)


def _size(parameter: Any) -> int:
    """ZeRO 3 leaves an empty tensor and its size."""
    return int(getattr(parameter, "ds_numel", parameter.numel()))


def _weights(job: LmJob, dtype: torch.dtype, progress: Progress) -> None:
    """The best weights on a fresh module (ZeRO 3's own is in pieces), in the precision they were trained in."""
    from autoglm_ops.training import lora

    module = job.model.build(job.recipe.seed)
    disable_progress_bar()
    put_back(module, progress.best)
    folder = Path(job.out) / "weights"
    if job.model.lora is not None:
        lora.save(module, folder, job.model.lora, "causal-lm")
        return
    module.config._name_or_path = ""  # where a pretrained model was read from is this machine's business
    module.to(dtype).save_pretrained(folder, max_shard_size="1000GB")
