"""The adaptive rate: what a window asks for, where it stops, that it is worth having, and that a continued run repeats it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autoglm_ops.errors import UsageError
from autoglm_ops.training.callbacks.adaptive_rate import AdaptiveRate
from autoglm_ops.training.callbacks.base import Callback
from autoglm_ops.training.kept import newest_step
from autoglm_ops.training.progress import Progress
from autoglm_ops.training.trainer import AutoGLMTrainer, Fit

NOISY = [1.0, 1.1] * 50
CALM = [1.0] * 100
BETWEEN = [1.0, 1.005] * 50
# Each token is followed by the next one or, one time in three, by any: no two batches have the same gradient.
RANDOM = torch.Generator().manual_seed(0)
NOISE = torch.where(torch.rand(24, 8, generator=RANDOM) < 0.3, torch.randint(0, 32, (24, 8), generator=RANDOM), 0)
IDS = (torch.arange(24)[:, None] + torch.arange(8)[None] + NOISE) % 32
BATCHES = [{"input_ids": IDS[row : row + 2]} for row in range(0, 24, 2)]


class Bigrams(torch.nn.Module):
    """A table of next-token scores: convex, and small."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = torch.nn.Embedding(32, 32)

    def forward(self, input_ids: torch.Tensor) -> SimpleNamespace:
        return SimpleNamespace(logits=self.table(input_ids))


@pytest.mark.parametrize(("norms", "factor"), [(NOISY, 0.5), (CALM, 2.0), (BETWEEN, 1.0), (NOISY[:99], 1.0), ([], 1.0)])
def test_the_preset_halves_doubles_or_leaves(norms: list[float], factor: float) -> None:
    assert AdaptiveRate().factor(norms) == factor


def test_it_changes_once_a_window_and_within_bounds() -> None:
    rate, progress, seen = AdaptiveRate(window=4, most=4), Progress(), []
    for step in range(1, 25):
        progress.step, progress.norm = step, 1.0 + step % 2
        rate.on_step(progress)
        seen.append(progress.scale)
    assert seen[2:5] == [1.0, 0.5, 0.5]
    assert seen[7:] == [0.25] * 17


def test_an_engine_that_states_no_norm_changes_nothing() -> None:
    rate, progress = AdaptiveRate(window=2), Progress()
    for step in range(1, 10):
        progress.step = step
        rate.on_step(progress)
    assert progress.scale == 1.0


def test_thresholds_that_cannot_be_are_refused() -> None:
    with pytest.raises(UsageError, match="window must be at least 2, 0 <= low < high and most >= 1, but got 1"):
        AdaptiveRate(window=1)


class Dies(Callback):
    def on_step(self, progress: Progress) -> None:
        if progress.step == 50:
            raise KeyboardInterrupt


def fit(*callbacks: Callback, resume: bool = False, **changes: Any) -> Fit:
    torch.set_num_threads(1)
    config = {"model": Bigrams(), "max_steps": 96, "epochs": 100, "learning_rate": 3.0, "evaluations": 4, "seed": 3}
    return AutoGLMTrainer({**config, **changes}, callbacks=callbacks).fit(BATCHES, BATCHES, resume=resume)


def test_half_way_through_a_run_whose_rate_is_far_too_high_it_is_well_ahead(tmp_path: Path) -> None:
    without, adaptive = fit(), fit(AdaptiveRate(window=8), out=tmp_path / "whole")
    assert adaptive.validation[1][1] < 0.8 * without.validation[1][1]  # at the end the schedule has taken both rates to zero
    with pytest.raises(KeyboardInterrupt):
        fit(AdaptiveRate(window=8), Dies(), out=tmp_path / "broken")
    kept = newest_step(tmp_path / "broken" / "checkpoints")
    continued = fit(AdaptiveRate(window=8), out=tmp_path / "broken", resume=True)
    assert continued.resumed_at_step == kept in (24, 48)  # a slow disk may have had no time for the second
    assert (continued.validation, continued.weights_sha256) == (adaptive.validation, adaptive.weights_sha256)
