"""How to train, as one record, and the pure functions of a step that follow from it. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.contracts.record import Record
from autoglm_ops.errors import BadData

EARLY = 300
"""Steps after which weights are averaged where the settings leave it to the model, and it is a new one: what they are then owes little to
where they began. AdamW forgets that in about 1 / (learning rate x weight decay) steps (Wang and Aitchison 2024, arXiv:2405.13698): 333."""
LEAST = 0.3
"""Share of the last steps that is averaged then, however few there are."""
SNAPSHOTS = 100
"""Weights that one mean is made of, at most: more are no better, and each costs a copy of the model."""
POOL = 50
"""Batches that are sorted by length together: enough to save padding, few enough to stay shuffled."""


class Recipe(Record):
    """What the loop needs. `steps` are optimizer steps in all; `report` are the steps after which validation is scored."""

    learning_rate: float
    weight_decay: float
    batch_size: int
    warmup_share: float
    schedule: Literal["linear", "cosine"]
    label_smoothing: float
    token_dropout: float
    teacher: float = 0.0
    gradient_clip: float
    average: float = 0.0
    initial: Literal["random", "odds"] = "random"
    steps: int
    report: tuple[int, ...]
    seed: int

    @classmethod
    def of(
        cls, train: Mapping[str, Any], *, rows: int, seed: int, steps: int | None = None, pretrained: bool = False
    ) -> Recipe:
        """From the `train` section of the settings. `steps` overrides epochs and max_steps (a trial's budget). A `pretrained` model
        averages no weights unless the settings say so: whether it gains by that has not been measured.

        Raises BadData when there are fewer training rows than one batch takes.
        """
        size = int(train["batch_size"])
        if rows < size:
            raise BadData(f"{rows} training rows are fewer than train.batch_size = {size}; lower it, or bring more data")
        total = steps or max(1, round(train["epochs"] * (rows // size)))
        if steps is None and train["max_steps"] is not None:
            total = min(total, train["max_steps"])
        count = min(int(train["evaluations"]), total)
        marks = tuple(sorted({round(total * (place + 1) / count) for place in range(count)}))
        kept = {key: train[key] for key in cls.model_fields if key in train}
        if kept.get("average") is None:
            kept["average"] = 0.0 if pretrained else max(LEAST, 1 - EARLY / total)
        return cls(**kept, steps=total, report=marks, seed=seed)

    @property
    def averaged(self) -> tuple[int, ...]:
        """The steps whose weights are averaged: evenly over the last `average` of all, the last one included."""
        last = round(self.average * self.steps)
        count = min(SNAPSHOTS, last)
        return tuple(self.steps - last * place // count for place in reversed(range(count)))

    def rate(self, step: int) -> float:
        """Learning rate of step 1..steps: linear warm-up to the peak, then down to zero on a line or half a cosine."""
        warm = max(1, round(self.warmup_share * self.steps))
        if step <= warm:
            return self.learning_rate * step / warm
        left = (self.steps - step) / max(1, self.steps - warm)
        return self.learning_rate * (left if self.schedule == "linear" else 0.5 * (1 - math.cos(math.pi * left)))


def epoch_batches(lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Row numbers of each full batch of one epoch, in order; a function of (seed, epoch).

    Rows are shuffled, pools of POOL batches are sorted by length and cut, and the batches are shuffled again. What is left over
    after the last full batch sits out this epoch; each epoch leaves out others.
    """
    random = np.random.default_rng((seed, epoch))
    order = random.permutation(len(lengths))
    order = order[: len(order) - len(order) % batch_size]
    pools = [order[at : at + POOL * batch_size] for at in range(0, len(order), POOL * batch_size)]
    sorted_pools = [pool[np.argsort(lengths[pool], kind="stable")] for pool in pools]
    batches = [pool[at : at + batch_size] for pool in sorted_pools for at in range(0, len(pool), batch_size)]
    return [batches[place] for place in random.permutation(len(batches))]


def share(batch: NDArray[np.int64], rank: int, ranks: int, accumulation: int) -> list[NDArray[np.int64]]:
    """A rank's micro-batches of one global batch. Neighbours in length go to different ranks, so that all finish together."""
    return np.split(batch[rank::ranks], accumulation)
