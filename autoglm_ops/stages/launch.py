"""`autoglm launch`: load → init → distributed train → checkpoints, from one train-config (spec P5). What is killed goes on where it was."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from autoglm_ops.contracts.launch import LaunchPlan, LaunchRecord, Setting
from autoglm_ops.contracts.record import digest_path, write_text
from autoglm_ops.errors import TryAgain
from autoglm_ops.planning import refuse_unless_fits
from autoglm_ops.stages import launch_rows, launch_tune
from autoglm_ops.stages.launch_plan import Place, Ready, refuse_over_budget, with_rate
from autoglm_ops.training import artifact, supervisor
from autoglm_ops.training.lm_job import LmJob, resident
from autoglm_ops.training.warm import WarmGroup

if TYPE_CHECKING:
    from autoglm_ops.tracking.mlflow import LiveRun

log = logging.getLogger(__name__)

RECORD = "launch.json"
BODY = "autoglm_ops.training.lm_rank:work"


class Done(NamedTuple):
    """What a launch left in `folder`. `again`: it was done before, and nothing was run. `away`: why MLflow did not hear of it."""

    folder: Path
    record: LaunchRecord
    measured: dict[str, Any]
    again: bool
    away: str


def start(ready: Ready, place: Place, watch: Callable[[str], None]) -> Done:
    """Train and publish below `home/launches/<key>`: model/ (or adapter/ with LoRA), plan.json, launch.json, measured.json.

    Raises Refused (does not fit, diverged), BudgetSpent, TryAgain (a rank was killed: the same call goes on), UsageError, BadData.
    """
    folder = place.home / "launches" / ready.plan.key
    away = deliver_overdue(place)
    if (folder / RECORD).exists():
        return _done(folder, again=True, away=away)
    refuse_unless_fits(ready.plan.plan)
    refuse_over_budget(ready)
    scratch = place.home / "scratch" / f"launch-{ready.plan.key}"
    ready = _tuned(ready, scratch, watch)
    work = scratch / "group"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    job = ready.job.model_copy(update={"out": str(work), "scratch": str(scratch / "checkpoints")})
    watch("training")
    away = _trained(job, work, ready, place)
    _publish(ready, job, work, folder)
    shutil.rmtree(scratch)  # the model is published: its checkpoints have served
    return _done(folder, again=False, away=away)


def _tuned(ready: Ready, scratch: Path, watch: Callable[[str], None]) -> Ready:
    rate = next(item for item in ready.plan.settings if item.key == "training.learning_rate")
    pipeline = ready.config.pipeline
    if rate.given or not pipeline.tuner:
        return ready
    why = launch_tune.refusal(ready.plan.plan, ready.shape.parameters)
    if why:
        return with_rate(ready, rate.model_copy(update={"reason": f"{rate.reason}; not tuned: {why}"}))
    watch("tuner: searching the learning rate")
    chosen, report = launch_tune.searched(ready.job, rate, pipeline.tuner_trials, pipeline.tuner_steps, scratch / "tuner")
    report.write(scratch / "tuning.json")
    return with_rate(ready, chosen)


def _trained(job: LmJob, work: Path, ready: Ready, place: Place) -> str:
    """Run the ranks while a courier carries their metrics to MLflow. Returns why it could not, if so."""
    from autoglm_ops.tracking.points import Courier

    live = _live(ready.plan, place)
    with Courier(resident(job.scratch), live.send) as courier, WarmGroup(job, BODY) as ranks:
        trail = supervisor.train(job, work, group=ranks)
    write_text(work / "recovery.json", json.dumps(trail.as_measured(), indent=2) + "\n")
    try:
        if not courier.away:
            live.finish({"autoglm.launch": ready.plan.key})
    except TryAgain as error:
        return str(error)
    return courier.away


def _live(plan: LaunchPlan, place: Place) -> LiveRun:
    from autoglm_ops.tracking.mlflow import LiveRun

    tracking = place.settings.tracking
    params = {item.key: json.dumps(item.value) for item in plan.settings} | dict(plan.inputs)
    return LiveRun(tracking.uri, place.home, tracking.experiment, f"launch-{plan.key}", params)


def deliver_overdue(place: Place) -> str:
    """Send what finished launches could not send. Returns why that failed again; empty when nothing waits any longer."""
    from autoglm_ops.tracking.points import deliver, waiting

    for path in sorted((place.home / "launches").glob("*/metrics.spool")):
        if not waiting(path):
            continue
        live = _live(LaunchPlan.read(path.parent / "plan.json"), place)
        try:
            deliver(path, live.send)
            live.finish({"autoglm.launch": path.parent.name})
        except TryAgain as error:
            return str(error)
    return ""


def _publish(ready: Ready, job: LmJob, work: Path, folder: Path) -> None:
    """The model, then the record: a folder without launch.json is no finished launch."""
    folder.mkdir(parents=True, exist_ok=True)
    name = "adapter" if job.model.lora is not None else "model"
    trained = json.loads((work / "trained.json").read_text(encoding="utf-8"))
    staged = folder / f".{name}.staged"
    shutil.rmtree(staged, ignore_errors=True)
    shutil.copytree(work / "weights", staged, ignore=shutil.ignore_patterns(artifact.MANIFEST))
    launch_rows.lay_tokenizer(ready.rows, staged)
    artifact.publish(staged, folder / name, architecture=trained["architecture"], labels=(), max_length=job.model.length)
    ready.plan.write(folder / "plan.json")
    for kept in (
        work / "measured.json",
        *work.glob("*.jsonl"),
        *Path(job.scratch).parent.glob("metrics.*"),
        Path(job.scratch).parent / "tuning.json",
    ):
        if kept.exists():
            shutil.copyfile(kept, folder / kept.name)
    for more in ("tensorboard", "wandb"):
        if (work / more).is_dir():
            shutil.rmtree(folder / more, ignore_errors=True)
            shutil.copytree(work / more, folder / more, symlinks=True)
    record = LaunchRecord(
        key=ready.plan.key,
        settings=tuple(_timeless(item) for item in ready.plan.settings),
        plan=ready.plan.plan,
        inputs=ready.plan.inputs,
        outputs={name: digest_path(folder / name)},
        trained=trained,
    )
    record.write(folder / RECORD)


def _timeless(item: Setting) -> Setting:
    """Without the tuner's seconds, which differ from run to run."""
    return item.model_copy(update={"reason": item.reason.rpartition("; ")[0]}) if item.reason.startswith("the tuner") else item


def _done(folder: Path, *, again: bool, away: str) -> Done:
    measured = json.loads((folder / "measured.json").read_text(encoding="utf-8"))
    return Done(folder, LaunchRecord.read(folder / RECORD), measured, again, away)
