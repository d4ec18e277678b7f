"""A launch before it spends anything: every setting filled in with its reason, the rows, the plan, and what it will cost."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.launch import Estimate, LaunchPlan, RowSet, Setting
from autoglm_ops.contracts.record import digest_of, digest_path
from autoglm_ops.contracts.training import HardwareSpec, ModelShape, ParallelPlan, RecoveryRules
from autoglm_ops.data import glm_tokenizer
from autoglm_ops.errors import BudgetSpent, UsageError
from autoglm_ops.planning import FAMILIES, deepspeed_config, defaults, make_plan, shape_of_config
from autoglm_ops.settings import Settings
from autoglm_ops.settings.launch import LaunchConfig, LaunchTraining
from autoglm_ops.stages import launch_rows
from autoglm_ops.training.lm_job import CausalModel, LmJob, optimizer_section
from autoglm_ops.training.lora import Lora
from autoglm_ops.training.models import BUILTIN, ModelSpec, glm_config, read_config, shape_of
from autoglm_ops.training.packed import steps_in
from autoglm_ops.training.recipe import Recipe


@dataclass(frozen=True)
class Place:
    """Where a launch works."""

    home: Path
    origin: Path
    settings: Settings


@dataclass(frozen=True)
class Ready:
    """A launch that may start: `plan` for people, `job` for the ranks (its out and scratch are set at the start)."""

    config: LaunchConfig
    plan: LaunchPlan
    job: LmJob
    rows: Path
    shape: ModelShape


def prepare(config: LaunchConfig, hardware: HardwareSpec, place: Place, watch: Callable[[str], None]) -> Ready:
    """Read, tokenise and pack the data (kept for the run), and decide all else but a tuned learning rate.

    Raises UsageError, BadData; and BudgetSpent when the estimate is over `budget.seconds`.
    """
    folder = _folder(config, place.origin)
    length = defaults.seq_length(config.model.seq_length, _limit(folder))
    source = _source(config, place, folder)
    rows, at = launch_rows.prepare(source, int(length.value), watch)  # type: ignore[call-overload]
    model = _model(config, folder, rows)
    shape = _shape(model)
    batch = defaults.batch_size(config.training.batch_size, rows.rows["train"], rows.length, config.training.epochs)
    size = int(batch.value)  # type: ignore[call-overload]
    plan = _parallel(config, hardware, shape, size)
    rate = defaults.learning_rate(
        config.training.learning_rate, shape.parameters, config.training.optimizer, model.lora is not None
    )
    recipe = _recipe(config, rows, size, float(rate.value))  # type: ignore[arg-type]
    job = _job(place.settings, config, plan, model, recipe, rows, at)
    job = job.model_copy(update={"peak_flops": hardware.gpu_tflops * 1e12 * plan.ranks if hardware.gpus else 0.0})
    settings = tuple(
        Setting(key=item.key, value=item.value, reason=item.reason, given=item.given)
        for item in (length, *_said(config, rows, plan), batch, rate)
    )
    estimate = _estimate(config, plan, recipe)
    inputs = {
        "config": digest_of(config.model_dump(mode="json")),
        "data": rows.data,
        "rows": rows.digest,
        "tokenizer": rows.tokenizer,
    }
    if folder is not None:
        inputs["model"] = digest_path(folder)
    key = digest_of(
        {"config": inputs["config"], "rows": rows.digest, "model": inputs.get("model"), "plan": plan.fingerprint()}
    )[:16]
    told = LaunchPlan(
        key=key, config=config.model_dump(mode="json"), settings=settings, rows=rows, plan=plan, estimate=estimate, inputs=inputs
    )  # fmt: skip
    return Ready(config, told, job, at, shape)


def refuse_over_budget(ready: Ready) -> None:
    """Raise BudgetSpent when the estimate is over what the config gives."""
    seconds, most = ready.plan.estimate.seconds, ready.config.budget.seconds
    if most is not None and seconds > most:
        raise BudgetSpent(
            f"budget-spent: the run is estimated at {seconds:.0f} s ({ready.plan.estimate.basis}) and budget.seconds is {most:g}; raise it, "
            "lower training.max_steps, or take a smaller model"
        )


def _folder(config: LaunchConfig, origin: Path) -> Path | None:
    """The model's folder, None for a built-in. Raises UsageError for neither."""
    name = config.model.name
    folder = origin / Path(name).expanduser()
    if name in BUILTIN.names():
        return None
    if folder.is_dir():
        changed = [key for key in ("hidden_size", "layers", "heads", "dropout") if getattr(config.model, key) is not None]
        if changed:
            raise UsageError(f"model.{changed[0]} cannot be changed for {name!r}: its config.json fixes it; leave it out")
        return folder
    try:
        BUILTIN.get(name)
    except UsageError as error:
        raise UsageError(f"model.name = {name!r} is no folder here, and nothing is downloaded from a hub; {error}") from error
    return None


def _limit(folder: Path | None) -> int | None:
    return None if folder is None else read_config(folder).get("max_position_embeddings")


def _source(config: LaunchConfig, place: Place, folder: Path | None) -> launch_rows.Source:
    name = config.dataset.tokenizer
    if name is None and folder is not None and (folder / "tokenizer.json").is_file():
        tokenizer: Path | None = folder
    elif name in (None, glm_tokenizer.NAME):
        if folder is not None and any(folder.glob("*.safetensors")):
            raise UsageError(
                f"model {config.model.name!r} is pretrained and a {glm_tokenizer.NAME} would be new to it; set dataset.tokenizer to the "
                "folder of the tokenizer it was trained with"
            )
        tokenizer = None
    else:
        tokenizer = place.origin / Path(str(name)).expanduser()
        if not (tokenizer / "tokenizer.json").is_file():
            raise UsageError(
                f"dataset.tokenizer = {name!r} is no folder with a tokenizer.json here, and not {glm_tokenizer.NAME}; nothing is downloaded "
                "from a hub: save the tokenizer and name its folder"
            )
    return launch_rows.Source(place.settings, config.dataset, place.home, place.origin, config.pipeline.data_flow, tokenizer)


def _model(config: LaunchConfig, folder: Path | None, rows: RowSet) -> CausalModel:
    changed = {
        key: value for key, value in config.model.model_dump(exclude={"name", "seq_length"}).items() if value is not None
    }
    lora = config.training.lora
    if lora is not None and (folder is None or not any(folder.glob("*.safetensors"))):
        raise UsageError(
            "training.lora adapts a pretrained model, and this one starts from nothing; name a folder with weights, or leave it out"
        )
    return CausalModel(
        name=config.model.name,
        folder=str(folder) if folder else None,
        overrides={} if folder else {**BUILTIN.get(config.model.name)(), **changed},
        vocabulary=rows.vocabulary,
        pad_id=rows.pad_id,
        length=rows.length,
        lora=Lora(**lora.model_dump()) if lora else None,
    )


def _shape(model: CausalModel) -> ModelShape:
    spec = ModelSpec(
        name=model.name, folder=model.folder, overrides=model.overrides, vocabulary=model.vocabulary, pad_id=model.pad_id,
        max_length=model.length, labels=(),
    )  # fmt: skip
    known: Any = {"model_type": "glm", **glm_config(spec)} if model.folder is None else read_config(Path(model.folder))
    if known.get("model_type") not in FAMILIES:
        return shape_of(spec)
    return shape_of_config(known, task="causal-lm", max_length=model.length)


def _parallel(config: LaunchConfig, hardware: HardwareSpec, shape: ModelShape, batch: int) -> ParallelPlan:
    given = config.training
    fixed: dict[str, int | None] = given.model_dump(include={"ranks", "micro_batch", "zero_stage", "tensor", "pipeline"})
    if not config.pipeline.auto_parallel:
        parts = (given.tensor or 1) * (given.pipeline or 1)
        alone = {"ranks": parts, "micro_batch": 1, "zero_stage": 0, "tensor": 1, "pipeline": 1}
        fixed = {name: value if value is not None else alone[name] for name, value in fixed.items()}
    return make_plan(hardware, shape, batch_size=batch, precision=given.precision, splits=given.lora is None, **fixed)


def _recipe(config: LaunchConfig, rows: RowSet, batch: int, rate: float) -> Recipe:
    given = config.training
    steps = steps_in(rows.rows["train"], batch, given.epochs, given.max_steps)
    count = min(given.evaluations, steps)
    kept = given.model_dump(include={"weight_decay", "warmup_share", "schedule", "label_smoothing", "gradient_clip", "seed"})
    marks = tuple(sorted({round(steps * (place + 1) / count) for place in range(count)}))
    return Recipe(**kept, learning_rate=rate, batch_size=batch, token_dropout=0.0, steps=steps, report=marks)


def _job(
    settings: Settings, config: LaunchConfig, plan: ParallelPlan, model: CausalModel, recipe: Recipe, rows: RowSet, at: Path
) -> LmJob:
    base = deepspeed_config(
        plan, learning_rate=recipe.learning_rate, weight_decay=recipe.weight_decay, gradient_clip=recipe.gradient_clip
    )
    return LmJob(
        rows=str(at), out="", scratch="", plan=plan, deepspeed=optimizer_section(config.training.optimizer, base), model=model,
        recipe=recipe, loss=config.training.loss, callbacks=_callbacks(config), deadline=config.budget.seconds, data=rows.digest,
        rules=_rules(settings, plan),
    )  # fmt: skip


def _rules(settings: Settings, plan: ParallelPlan) -> RecoveryRules:
    """A large model's step is longer than what a small one's hang is: unless the settings say so, twenty estimated steps without a beat."""
    given = settings.recovery.model_dump()
    return RecoveryRules(**{**given, "hang_seconds": given["hang_seconds"] or max(60.0, 20 * plan.step_seconds)})


def _callbacks(config: LaunchConfig) -> tuple[tuple[str, dict[str, Any]], ...]:
    """Each by name, looked up now: a name nobody knows must not be found out in the ranks."""
    from autoglm_ops.training.callbacks.catalog import CALLBACKS
    from autoglm_ops.training.lm_job import LOSSES

    LOSSES.get(config.training.loss)
    found = []
    for item in config.training.callbacks:
        pairs = [(item, {})] if isinstance(item, str) else list(item.items())
        for name, options in pairs:
            CALLBACKS.get(name)
            found.append((name, dict(options or {})))
    return tuple(found)


def with_rate(ready: Ready, rate: Setting) -> Ready:
    """`ready` with another learning rate."""
    value = float(rate.value)
    settings = tuple(rate if item.key == rate.key else item for item in ready.plan.settings)
    section = json.loads(json.dumps(ready.job.deepspeed))
    section["optimizer"]["params"]["lr"] = value
    job = ready.job.model_copy(
        update={"deepspeed": section, "recipe": ready.job.recipe.model_copy(update={"learning_rate": value})}
    )
    return Ready(ready.config, ready.plan.model_copy(update={"settings": settings}), job, ready.rows, ready.shape)


def _said(config: LaunchConfig, rows: RowSet, plan: ParallelPlan) -> list[defaults.Filled]:
    """What the planner, the tokenizer and the schema settled."""
    given, flow = config.training, config.pipeline.data_flow
    tokenizer = config.dataset.tokenizer or (
        "the model's own" if rows.vocabulary and config.model.name not in BUILTIN.names() else glm_tokenizer.NAME
    )
    reasons = list(plan.reasons)
    texts = f"{rows.rows['train']:,} + {rows.rows['validation']:,} rows, {rows.tokens['train']:,} tokens to learn from"
    adamw = (
        "decoupled weight decay; the default of every recipe cited here" if given.optimizer == "adamw" else "the config says so"
    )
    off = "auto_parallel is off; " if not config.pipeline.auto_parallel else ""
    return [
        defaults.Filled(
            "dataset.tokenizer", tokenizer, f"{rows.vocabulary:,} tokens; {texts}", config.dataset.tokenizer is not None
        ),
        defaults.Filled("dataset.format", rows.format, "seen in the first record", config.dataset.format != "auto"),
        defaults.Filled("pipeline.data_flow", flow, _dropped(rows) if flow else "off: the raw text as it lies there"),
        defaults.Filled("training.optimizer", given.optimizer, adamw, "optimizer" in given.model_fields_set),
        _planned("precision", plan.precision, given.precision != "auto", "", _after(reasons[0])),
        _planned("ranks", plan.ranks, given.ranks is not None, off, _after(reasons[1])),
        *_laid(given, plan, off, _after(reasons[2])),
        _planned("micro_batch", plan.micro_batch, given.micro_batch is not None, off, reasons[3]),
        *(_planned(f"memory.{place}", "on", False, "", _after(reason)) for place, reason in enumerate(reasons[4:], 1)),
    ]


def _laid(given: LaunchTraining, plan: ParallelPlan, off: str, why: str) -> list[defaults.Filled]:
    """How a copy of the model lies on its ranks: by ZeRO, or cut."""
    if not plan.split:
        return [_planned("zero_stage", plan.zero_stage, given.zero_stage is not None, off, why)]
    return [
        _planned("tensor", plan.tensor, given.tensor is not None, off, why),
        _planned("pipeline", plan.pipeline, given.pipeline is not None, off, why),
    ]


def _planned(key: str, value: object, given: bool, off: str, reason: str) -> defaults.Filled:
    """What the planner settled. What the config fixed it says itself: the planner knows those keys by other names."""
    return defaults.Filled(f"training.{key}", value, "the config says so" if given else off + reason, given)


def _after(reason: str) -> str:
    return reason.partition(": ")[2]


def _dropped(rows: RowSet) -> str:
    gone = ", ".join(f"{reason} {count}" for reason, count in sorted(rows.dropped.items()) if count)
    return f"on; dropped: {gone or 'nothing'}"


def _estimate(config: LaunchConfig, plan: ParallelPlan, recipe: Recipe) -> Estimate:
    seconds = plan.step_seconds * recipe.steps
    money = seconds / 3600 * config.budget.price_per_hour
    basis = f"{recipe.steps} steps x {plan.step_seconds:.3g} s, the planner's estimate of a step"
    return Estimate(steps=recipe.steps, seconds=round(seconds, 3), money=round(money, 4), basis=basis)
