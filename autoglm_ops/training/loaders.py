"""Any iterable of dict batches as the loop's feed and judge.

A batch is a mapping of tensors (or arrays) by name. `labels` is int64 [rows] for classification, and [rows, width] for a causal LM,
where it may be left out: then every attended token is to be learned. All else goes to the module's forward by its name, usually
`input_ids` [rows, width], `attention_mask` [rows, width] and `position_ids` [rows, width], all int64.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sized
from typing import Any

import numpy as np
import torch

from autoglm_ops.errors import BadData, UsageError
from autoglm_ops.training.batch import DictBatch
from autoglm_ops.training.loop import Diverged, Engine, Taken
from autoglm_ops.training.metrics import macro_f1
from autoglm_ops.training.objective import IGNORED, Objective

Loader = Iterable[Mapping[str, Any]]


class Reader:
    """Checks and converts a loader's batches. `vocabulary` is the number of ids the model knows, None when it cannot be told."""

    def __init__(self, task: str, vocabulary: int | None, extra: Mapping[str, Any]) -> None:
        self._task, self._vocabulary, self._extra = task, vocabulary, extra

    def read(self, raw: Mapping[str, Any], place: int) -> DictBatch:
        """Raises BadData naming the batch by its place."""
        if not isinstance(raw, Mapping) or "input_ids" not in raw:
            names = sorted(map(str, raw)) if isinstance(raw, Mapping) else type(raw).__name__
            raise BadData(f"batch {place} of the loader is no mapping with input_ids: {names}", ("bad-batch",))
        given = {name: torch.as_tensor(value) if isinstance(value, np.ndarray | list) else value for name, value in raw.items()}
        labels = given.pop("labels", None)
        if labels is None:
            labels = self._all(given, place)
        wanted = 2 if self._task == "causal-lm" else 1
        if labels.dim() != wanted or len(labels) != len(given["input_ids"]):
            raise BadData(
                f"batch {place}: labels have the shape {tuple(labels.shape)} beside input_ids {tuple(given['input_ids'].shape)}; "
                f"task {self._task} takes {'[rows, width]' if wanted == 2 else '[rows]'}",
                ("bad-batch",),
            )
        self._known(given["input_ids"], place)
        return DictBatch({**given, **self._extra}, labels)

    def _all(self, given: Mapping[str, Any], place: int) -> torch.Tensor:
        if self._task != "causal-lm":
            raise BadData(f"batch {place} of the loader has no labels; task {self._task} needs them", ("bad-batch",))
        ids: torch.Tensor = given["input_ids"]
        mask = given.get("attention_mask")
        return ids if mask is None else ids.masked_fill(mask == 0, IGNORED)

    def _known(self, ids: torch.Tensor, place: int) -> None:
        highest, lowest = int(ids.max()), int(ids.min())
        if self._vocabulary is not None and not 0 <= lowest <= highest < self._vocabulary:
            wrong = lowest if lowest < 0 else highest
            raise BadData(
                f"batch {place}: token id {wrong} is outside the model's vocabulary of {self._vocabulary}; "
                "use the model's own tokenizer, or set vocabulary",
                ("unknown-token",),
            )


def steps_of(loader: Loader, accumulation: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps in all. Raises UsageError when nothing says how many there are, BadData when there are none."""
    count = len(loader) if isinstance(loader, Sized) else None
    if count == 0:
        raise BadData("the training loader is empty", ("no-rows",))
    if count is None:
        if max_steps is None:
            raise UsageError(f"a {type(loader).__name__} has no length, so epochs = {epochs:g} says nothing; set max_steps")
        return max_steps
    total = max(1, round(epochs * math.ceil(count / accumulation)))
    return min(total, max_steps or total)


class LoaderFeed:
    """Epoch after epoch of a loader's batches, `accumulation` a step; an epoch's last step takes what is left.

    torch is seeded by (seed, epoch, batch) around each batch drawn, so a shuffling DataLoader gives a continued run the batches the
    unbroken one had. Order drawn from other generators is the loader's own business; `set_epoch` is called where a loader has it.
    """

    def __init__(self, loader: Loader, reader: Reader, accumulation: int, seed: int) -> None:
        self._loader, self._reader, self._accumulation, self._seed = loader, reader, accumulation, seed
        self._epoch, self._place = -1, 0
        self._open: Iterator[Mapping[str, Any]] | None = None

    def skip(self, steps: int) -> None:
        """Draw and drop the batches of steps 1 to `steps`."""
        for step in range(1, steps + 1):
            self.take(step)

    def take(self, step: int) -> Taken:
        batches: list[DictBatch] = []
        while len(batches) < self._accumulation:
            raw = self._draw()
            if raw is None:
                if batches:
                    break
                self._begin()
                continue
            batches.append(self._reader.read(raw, self._place))
        return Taken([*batches], sum(len(batch.labels) for batch in batches), sum(map(_tokens, batches)))

    def _draw(self) -> Mapping[str, Any] | None:
        """The next batch of this epoch, None at its end."""
        if self._open is None:
            return None
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(((self._seed * 1_000_003 + self._epoch) * 1_009 + self._place) * 31 + 17)
            raw = next(self._open, None)
        self._place += 1
        if raw is None:
            self._open = None
        return raw

    def _begin(self) -> None:
        if self._epoch >= 0 and self._place <= 1:
            raise UsageError(
                f"the training loader ({type(self._loader).__name__}) gave nothing in epoch {self._epoch}: it can be read only once, or "
                "is empty; give one that can be iterated again, or lower max_steps"
            )
        self._epoch, self._place = self._epoch + 1, 0
        if hasattr(self._loader, "set_epoch"):
            self._loader.set_epoch(self._epoch)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed((self._seed * 1_000_003 + self._epoch) * 1_009)
            self._open = iter(self._loader)


def _tokens(batch: DictBatch) -> int:
    mask = batch.given.get("attention_mask")
    return int(mask.sum()) if mask is not None else int(batch.given["input_ids"].numel())


class LossJudge:
    """Mean loss per labelled item of the validation loader."""

    metric = "loss"
    higher = False

    def __init__(self, loader: Loader, reader: Reader, objective: Objective) -> None:
        self._loader, self._reader, self._objective = loader, reader, objective

    def score(self, engine: Engine, step: int) -> float:
        total, items = 0.0, 0
        with torch.no_grad():
            for place, raw in enumerate(self._loader):
                batch = self._reader.read(raw, place)
                total += float(self._objective.loss(engine.logits(batch), batch, 1.0))
                items += self._objective.items(batch)
        if items == 0:
            raise BadData("the validation loader holds no labelled item", ("no-rows",))
        if not math.isfinite(total):
            raise Diverged(f"diverged: the validation loss is {total} at step {step}; lower the learning rate")
        return total / items


class ClassJudge:
    """Macro-F1 of the validation loader."""

    metric = "macro-F1"
    higher = True

    def __init__(self, loader: Loader, reader: Reader) -> None:
        self._loader, self._reader = loader, reader

    def score(self, engine: Engine, step: int) -> float:
        batches = [self._reader.read(raw, place) for place, raw in enumerate(self._loader)]
        if not batches:
            raise BadData("the validation loader is empty", ("no-rows",))
        logits = np.concatenate([engine.logits(batch).numpy() for batch in batches])
        if not np.isfinite(logits).all():
            raise Diverged(f"diverged: validation scores are not finite at step {step}; lower the learning rate")
        labels = np.concatenate([batch.labels.cpu().numpy() for batch in batches])
        return macro_f1(labels, logits.argmax(1), logits.shape[1])
