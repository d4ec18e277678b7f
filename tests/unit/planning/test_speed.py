"""Of one rank and two on a machine of two cores, the plan is the one that was measured to be faster."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.training import HardwareSpec, ModelShape
from autoglm_ops.planning import make_plan
from autoglm_ops.stages.plan import exact_shape
from autoglm_ops.training.models import ModelSpec

LAPTOP = HardwareSpec(cpus=2, memory_gib=23)


def glm(width: int, layers: int, mean_length: int) -> ModelShape:
    meta = TokenMeta(vocabulary=8000, pad_id=0, max_length=128, labels=("neg", "pos"), rows={})
    spec = ModelSpec.of(
        {"name": "glm-small", "hidden_size": width, "layers": layers, "heads": None, "dropout": None}, meta, Path()
    )
    return exact_shape(spec).model_copy(update={"mean_length": mean_length})


@pytest.mark.parametrize(
    ("width", "layers", "one", "two"),
    [(128, 1, 30, 42), (256, 1, 47, 77), (512, 1, 102, 165), (128, 4, 182, 170), (384, 4, 889, 796)],
)
def test_the_faster_number_of_ranks_is_chosen(width: int, layers: int, one: float, two: float) -> None:
    """one, two: milliseconds of a DeepSpeed step that were measured, of 32 rows of 46 tokens on average."""
    plan = make_plan(LAPTOP, glm(width, layers, 46), batch_size=32)
    assert plan.ranks == (1 if one < two else 2), plan.reasons
    assert plan.step_seconds is not None and 0.3 < plan.step_seconds * 1000 / min(one, two) < 1.6


def test_one_rank_has_all_threads_and_its_reason() -> None:
    plan = make_plan(LAPTOP, glm(128, 1, 46), batch_size=32)
    assert plan.threads_per_rank == 2
    assert "ranks 1 of 2: more would spend longer on messages than they save, or do not fit" in plan.reasons


def test_time_hangs_on_the_usual_length_and_memory_on_the_longest() -> None:
    short, long = (make_plan(LAPTOP, glm(128, 4, length), batch_size=32, ranks=1) for length in (16, 128))
    assert short.step_seconds is not None and long.step_seconds is not None and long.step_seconds > 5 * short.step_seconds
    assert short.memory_bytes == long.memory_bytes
