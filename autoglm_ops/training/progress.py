"""Where a run is: what the loop writes, callbacks read and checkpoints keep."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch

Weights = dict[str, torch.Tensor]


@dataclass
class Progress:
    """Everything up to `changes` is what a run is continued from; the rest tells callbacks about this very moment.

    `running` is the sum of this rank's losses over the `since` steps after the last evaluation; `changes` are what recoveries changed
    (`TrainingChange`).

    `losses` and `validation` are (step, value) after each evaluation. A callback may set `stop` to a reason, which ends the run in
    order after this step, and `scale`, by which the schedule's learning rate is multiplied from the next step on; what it must remember
    when a run is continued it keeps in `notes`, under its own name.
    """

    step: int = 0
    samples: int = 0
    tokens: int = 0
    best_step: int = 0
    best_score: float = -1.0
    losses: list[tuple[int, float]] = field(default_factory=list)
    validation: list[tuple[int, float]] = field(default_factory=list)
    best: Weights = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=lambda: {"steps": 0.0, "evaluations": 0.0})
    scale: float = 1.0
    notes: dict[str, list[float]] = field(default_factory=dict)
    running: float = 0.0
    since: int = 0
    changes: list[dict[str, Any]] = field(default_factory=list)
    steps: int = 0
    metric: str = ""
    loss: float = 0.0
    rate: float = 0.0
    norm: float = 0.0
    stop: str = ""
    averaged: bool = False
    """The engine holds the mean of its last weights, which is published and which no run goes on from."""
