"""Every kind of plan the planner can choose, run on two CPU ranks: its losses are the data-parallel run's (spec T3).

Offload is meant for GPUs and runs here too: DeepSpeed's CPU accelerator takes the same configuration and the same code paths.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autoglm_ops.contracts.training import ParallelPlan
from autoglm_ops.planning import deepspeed_config
from autoglm_ops.training.lm_job import CausalModel, LmJob, optimizer_section
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.warm import WarmGroup, error_of

BODY = "autoglm_ops.training.lm_rank:work"
KINDS: tuple[tuple[int, bool, str], ...] = (
    (0, False, "none"), (0, True, "none"), (1, False, "none"), (2, False, "none"), (2, True, "none"), (3, False, "none"), (3, True, "none"),
    (1, False, "optimizer"), (2, True, "optimizer"), (3, False, "optimizer"), (3, True, "parameters"),
)  # fmt: skip


def rows(folder: Path) -> Path:
    dice = np.random.default_rng(0)
    for split, count in (("train", 64), ("validation", 8)):
        (folder / split).mkdir(parents=True)
        start = dice.integers(1, 30, (count, 1))
        np.save(folder / split / "part-000000.tokens.npy", ((start + np.arange(16)) % 30 + 1).astype(np.int32))
        np.save(folder / split / "part-000000.segments.npy", np.ones((count, 16), np.int32))
    return folder


def job(folder: Path, data: Path, kind: tuple[int, bool, str]) -> LmJob:
    stage, again, offload = kind
    given: dict[str, Any] = {"zero_stage": stage, "checkpointing": again, "offload": offload}
    plan = ParallelPlan(
        ranks=2, micro_batch=4, accumulation=2, precision="fp32", device="cpu", threads_per_rank=1, memory_bytes={}, fits=True, reasons=(),
        buckets={} if stage == 0 else {"reduce_bucket_size": 50_000, "allgather_bucket_size": 50_000}, **given,
    )  # fmt: skip
    overrides = {"hidden_size": 32, "layers": 2, "heads": 4, "dropout": 0.0}
    config = deepspeed_config(plan, learning_rate=1e-2, weight_decay=0.01, gradient_clip=1.0)
    if offload != "none":
        for part in ("offload_optimizer", "offload_param"):
            config["zero_optimization"].get(part, {}).pop("pin_memory", None)  # what is pinned is a GPU's
    recipe = Recipe(
        learning_rate=1e-2, weight_decay=0.01, batch_size=16, warmup_share=0.1, schedule="linear", label_smoothing=0.0, token_dropout=0.0,
        gradient_clip=1.0, steps=4, report=(1, 2, 3, 4), seed=1,
    )  # fmt: skip
    name = f"{stage}-{int(again)}-{offload}"
    (folder / name).mkdir()
    return LmJob(
        rows=str(data), out=str(folder / name), scratch=str(folder / name / "run" / "checkpoints"), plan=plan,
        deepspeed=optimizer_section("adamw", config), recipe=recipe, loss="causal-lm",
        model=CausalModel(name="glm-tiny", folder=None, overrides=overrides, vocabulary=40, pad_id=0, length=16),
    )  # fmt: skip


@pytest.mark.slow
def test_every_kind_of_plan_gives_the_data_parallel_losses(tmp_path: Path) -> None:
    data = rows(tmp_path / "rows")
    found = {}
    jobs = [job(tmp_path, data, kind) for kind in KINDS]
    with WarmGroup(jobs[0], BODY) as group:
        for one in jobs:
            group.start(one, Path(one.out))
            assert group.ended(timeout=300), f"{one.out} hangs"
            if group.failure is not None:
                raise error_of(group.failure)
            said = json.loads((Path(one.out) / "trained.json").read_text())
            found[Path(one.out).name] = [value for _, value in said["losses"] + said["validation"]]
    first = found["0-0-none"]
    assert first[-1] < first[0]
    for name, values in found.items():
        assert values == pytest.approx(first, rel=1e-4), name
