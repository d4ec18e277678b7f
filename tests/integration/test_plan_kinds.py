"""Every kind of plan the planner can choose, run on CPU ranks: its losses are the data-parallel run's (spec T3).

Offload is meant for GPUs and runs here too: DeepSpeed's CPU accelerator takes the same configuration and the same code paths.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tiny_lm import BODY, job, losses, rows, saved, trained

from autoglm_ops.training.warm import WarmGroup

ZERO: tuple[tuple[int, bool, str], ...] = (
    (0, False, "none"), (0, True, "none"), (1, False, "none"), (2, False, "none"), (2, True, "none"), (3, False, "none"), (3, True, "none"),
    (1, False, "optimizer"), (2, True, "optimizer"), (3, False, "optimizer"), (3, True, "parameters"),
)  # fmt: skip
CUT: tuple[tuple[int, int, int, bool], ...] = (
    (2, 1, 1, False), (2, 1, 1, True), (1, 2, 1, False), (1, 2, 1, True), (2, 1, 2, False), (1, 2, 2, False), (2, 2, 1, False),
)  # fmt: skip
"""Tensor, pipeline, copies, checkpointing; the last three on four ranks."""


def kinds() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {
        f"{stage}-{int(again)}-{offload}": {"zero_stage": stage, "checkpointing": again, "offload": offload}
        for stage, again, offload in ZERO
    }
    for tensor, pipeline, copies, again in CUT:
        ranks = tensor * pipeline * copies
        plan = {"tensor": tensor, "pipeline": pipeline, "ranks": ranks, "checkpointing": again}
        found[f"tensor-{tensor}-pipeline-{pipeline}-copies-{copies}-{int(again)}"] = plan
    return found


@pytest.mark.slow
def test_every_kind_of_plan_gives_the_data_parallel_losses(tmp_path: Path) -> None:
    data = rows(tmp_path / "rows")
    jobs = {name: job(tmp_path / name, data, **kind) for name, kind in kinds().items()}
    with WarmGroup(jobs["0-0-none"], BODY) as group:
        found = {name: losses(trained(group, one)) for name, one in jobs.items()}
    first = found["0-0-none"]
    assert first[-1] < first[0]
    for name, values in found.items():
        assert values == pytest.approx(first, rel=1e-4), name


@pytest.mark.slow
@pytest.mark.parametrize("family", ["glm4", "mistral", "qwen2", "qwen3"])
def test_every_family_that_is_cut_gives_the_data_parallel_losses(family: str, tmp_path: Path) -> None:
    data, model = rows(tmp_path / "rows"), saved(family, tmp_path / family, tied=False, vocabulary=41)
    jobs = [
        job(tmp_path / str(number), data, model=model, **cut) for number, cut in enumerate(({}, {"tensor": 2}, {"pipeline": 2}))
    ]
    with WarmGroup(jobs[0], BODY) as group:
        first, *cut = (losses(trained(group, one)) for one in jobs)
    for values in cut:
        assert values == pytest.approx(first, rel=1e-4)
