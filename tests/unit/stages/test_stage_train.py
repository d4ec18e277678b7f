"""What the stage says of the mean it publishes."""

from __future__ import annotations

import pytest

from autoglm_ops.contracts.training import TrainingRecord
from autoglm_ops.stages.train import _better

RECORD = TrainingRecord(
    architecture="glm", parameters=1, plan_digest="", settings={}, steps=30, epochs=1, samples=30, tokens=30, losses=(),
    validation=((10, 0.7), (20, 0.83), (30, 0.81)), best_step=30, averaged_from=16, weights_sha256="",
)  # fmt: skip


def test_a_mean_below_an_evaluation_on_the_way_is_said() -> None:
    (said,) = _better(RECORD)
    assert said == (
        "the mean of the weights from step 16 on scores 0.8100 on validation, and those at step 20 scored 0.8300; train.average = 0 "
        "publishes the best"
    )


@pytest.mark.parametrize(
    "changed",
    [
        {"averaged_from": 0, "best_step": 20},
        {"validation": ((30, 0.81),)},
        {"validation": ((10, 0.81), (30, 0.81))},
        {"validation": ()},
    ],
)
def test_nothing_is_said_where_nothing_did_better(changed: dict[str, object]) -> None:
    assert _better(RECORD.model_copy(update=changed)) == ()


def test_a_record_without_a_mean_has_the_bytes_it_had() -> None:
    assert "averaged_from" not in RECORD.model_copy(update={"averaged_from": 0}).to_json()
    assert '"averaged_from": 16' in RECORD.to_json()
