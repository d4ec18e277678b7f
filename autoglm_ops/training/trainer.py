"""AutoGLMTrainer: a model and two loaders in, trained weights and a record out.

    AutoGLMTrainer({"model": "glm-large", "auto_lr": True, "gradient_clip": 1.0}).fit(train_loader, val_loader)

and, for instructions on a pretrained model:

    trainer = AutoGLMTrainer({"model": "models/smollm2", "lora": {"rank": 8}, "learning_rate": 1e-3, "out": "runs/sft"})
    read = instructions.conversations(tokenizer, given, max_length=1024)
    loader = ExampleLoader(read.examples, batch_size=4, width=1024, pad_id=tokenizer.pad_token_id, module=trainer.module)
    trainer.fit(loader, held_out)

It runs the pipeline's own loop in this process (`loop.run` over a `PlainEngine`); the stage `train` runs the same loop in DeepSpeed ranks.
What loaders hold is said in `loaders`; `instructions` makes them of conversations and texts.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from autoglm_ops.contracts.record import Record, digest_of
from autoglm_ops.errors import UsageError
from autoglm_ops.training import artifact, checkpoint, lora
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.callbacks.checkpoints import Checkpoints
from autoglm_ops.training.config import TrainerConfig
from autoglm_ops.training.loaders import ClassJudge, Loader, LoaderFeed, LossJudge, Reader, steps_of
from autoglm_ops.training.loop import Judge, run
from autoglm_ops.training.objective import CausalLM, Classification, Objective
from autoglm_ops.training.plain import PlainEngine, put_back
from autoglm_ops.training.progress import Progress
from autoglm_ops.training.range_test import RangeTest, range_test
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.sources import module_of


class Fit(Record):
    """What a fit did; `seconds` and `tokens_per_second` are this process's. Values are `metric` on the validation loader; `folder` is where the best weights lie, None when in memory only."""

    config: dict[str, Any]
    metric: str
    learning_rate: float
    range_test: RangeTest | None
    parameters: int
    trained: int
    """How many of `parameters` are not frozen."""
    steps: int
    samples: int
    tokens: int
    losses: tuple[tuple[int, float], ...]
    validation: tuple[tuple[int, float], ...]
    best_step: int
    best_value: float
    stopped: str
    """Why it ended before its last step; empty when it did not."""
    resumed_at_step: int
    seconds: float
    tokens_per_second: float
    folder: str | None
    weights_sha256: str | None


class AutoGLMTrainer:
    """Trains what `config` says. Callbacks hear every step; `objective` replaces the task's own loss.

    Raises SettingsError on a wrong config, UsageError or BadData on a model or data that do not fit, Diverged, and what callbacks raise.
    """

    def __init__(
        self,
        config: TrainerConfig | Mapping[str, Any],
        *,
        callbacks: Sequence[Callback] = (),
        objective: Objective | None = None,
    ) -> None:
        self.config = TrainerConfig.of(config)
        self._callbacks = tuple(callbacks)
        own = CausalLM if self.config.task == "causal-lm" else Classification
        self._objective = objective or own(self.config.label_smoothing)
        self._module: Any = None

    @property
    def module(self) -> Any:
        """The torch module; with the best weights once `fit` is done. Made at the first use."""
        if self._module is None:
            module = module_of(self.config)
            if self.config.lora is not None:
                torch.manual_seed(self.config.seed)
                module = lora.wrap(module, self.config.lora, self.config.task)
            self._module = module
        return self._module

    def fit(self, train_loader: Loader, val_loader: Loader, *, resume: bool = False) -> Fit:
        """Train, keep the weights of the best evaluation, publish them under `out` (model/, or adapter/ with LoRA).

        `resume` continues from the newest checkpoint under `out` that verifies, bit for bit as if never broken off, if there is one.
        """
        reader = self._reader()
        steps = steps_of(train_loader, self.config.accumulation, self.config.epochs, self.config.max_steps)
        found = self._range_test(train_loader, reader) if self.config.auto_lr else None
        recipe = self._recipe(steps, found.chosen if found else self.config.learning_rate)
        engine = self._engine(recipe)
        progress = self._resumed(engine) if resume else Progress()
        start = replace(progress, seconds=dict(progress.seconds))
        feed = self._feed(train_loader, reader)
        feed.skip(start.step)
        heard = [*self._callbacks, *self._checkpoints(engine)]
        run(engine, feed, self._judge(val_loader, reader), recipe, callbacks=heard, progress=progress)
        put_back(self.module, progress.best)
        return self._told(progress, start, recipe, found, self._publish())

    def export(self, folder: Path) -> str:
        """Publish the whole model as `folder`, adapters folded in, which uses this trainer up; returns the folder's weights digest."""
        if self.config.lora is not None:
            self._module = lora.merged(self.module)
        return _publish_model(self.module, folder, self.config)

    def _reader(self) -> Reader:
        config = getattr(self.module, "config", None)
        embeddings = self.module.get_input_embeddings() if hasattr(self.module, "get_input_embeddings") else None
        # A cache of keys is for generating. It also keeps transformers from telling packed conversations apart (masking_utils).
        extra = {"use_cache": False} if hasattr(config, "use_cache") else {}
        return Reader(self.config.task, getattr(embeddings, "num_embeddings", None), extra)

    def _feed(self, loader: Loader, reader: Reader) -> LoaderFeed:
        return LoaderFeed(loader, reader, self.config.accumulation, self.config.seed)

    def _engine(self, recipe: Recipe) -> PlainEngine:
        return PlainEngine(self.module, recipe, self.config.accumulation, self._objective, self.config.precision)

    def _judge(self, loader: Loader, reader: Reader) -> Judge:
        if self.config.task == "classification":
            return ClassJudge(loader, reader)
        return LossJudge(loader, reader, self._objective)

    def _range_test(self, loader: Loader, reader: Reader) -> RangeTest:
        if iter(loader) is loader:
            raise UsageError("auto_lr reads the training loader before training does, and this one can be read only once")
        engine = self._engine(self._recipe(1, self.config.learning_rate))
        return range_test(engine, self._feed(loader, reader), seed=self.config.seed)

    def _recipe(self, steps: int, rate: float) -> Recipe:
        config = self.config
        count = min(config.evaluations, steps)
        return Recipe(
            learning_rate=rate,
            weight_decay=config.weight_decay,
            batch_size=1,
            warmup_share=config.warmup_share,
            schedule=config.schedule,
            label_smoothing=config.label_smoothing,
            token_dropout=0.0,
            gradient_clip=config.gradient_clip,
            steps=steps,
            report=tuple(sorted({round(steps * (place + 1) / count) for place in range(count)})),
            seed=config.seed,
        )

    @property
    def _key(self) -> str:
        shapes = {name: list(tensor.shape) for name, tensor in self.module.named_parameters()}
        return digest_of({"config": self.config.told(), "shapes": shapes})

    def _checkpoints(self, engine: PlainEngine) -> list[Callback]:
        return [Checkpoints(self.config.out / "checkpoints", self._key, engine)] if self.config.out else []

    def _resumed(self, engine: PlainEngine) -> Progress:
        if self.config.out is None:
            raise UsageError("resume needs out, the folder where checkpoints are kept")
        root = self.config.out / "checkpoints"
        found = checkpoint.newest(root, self._key)
        if found is None:
            if list(root.glob("step-*")):
                raise UsageError(
                    f"no checkpoint in {root} fits this config and model; remove them, or resume with the config they have"
                )
            return Progress()
        progress, weights, state = found
        engine.restore(weights, state)
        return progress

    def _publish(self) -> tuple[Path | None, str | None]:
        if self.config.out is None:
            return None, None
        if self.config.lora is not None:
            folder = self.config.out / "adapter"
            return folder, lora.save(self.module, folder, self.config.lora, self.config.task)
        folder = self.config.out / "model"
        return folder, _publish_model(self.module, folder, self.config)

    def _told(
        self,
        progress: Progress,
        start: Progress,
        recipe: Recipe,
        found: RangeTest | None,
        published: tuple[Path | None, str | None],
    ) -> Fit:
        sizes = [(parameter.numel(), parameter.requires_grad) for parameter in self.module.parameters()]
        spent = {name: value - start.seconds[name] for name, value in progress.seconds.items()}
        folder, digest = published
        return Fit(
            config=self.config.told(),
            metric=progress.metric,
            learning_rate=recipe.learning_rate,
            range_test=found,
            parameters=sum(size for size, _ in sizes),
            trained=sum(size for size, trainable in sizes if trainable),
            steps=progress.step,
            samples=progress.samples,
            tokens=progress.tokens,
            losses=tuple(progress.losses),
            validation=tuple(progress.validation),
            best_step=progress.best_step,
            best_value=progress.best_score,
            stopped=progress.stop,
            resumed_at_step=start.step,
            seconds=round(sum(spent.values()), 3),
            tokens_per_second=round((progress.tokens - start.tokens) / max(spent["steps"], 1e-9), 1),
            folder=str(folder) if folder else None,
            weights_sha256=digest,
        )


def _publish_model(module: Any, folder: Path, config: TrainerConfig) -> str:
    from safetensors.torch import save_model
    from transformers.utils.logging import disable_progress_bar

    staged = folder.with_name(f".{folder.name}.staged")
    shutil.rmtree(staged, ignore_errors=True)
    staged.mkdir(parents=True)
    if hasattr(module, "save_pretrained"):
        disable_progress_bar()
        module.config._name_or_path = ""  # where it was read from is this machine's business
        module.save_pretrained(staged, max_shard_size="1000GB")
    else:
        save_model(module, str(staged / "model.safetensors"))
    manifest = artifact.publish(
        staged, folder, architecture=type(module).__name__, labels=config.labels, max_length=config.max_length
    )
    return manifest.files["model.safetensors"]
