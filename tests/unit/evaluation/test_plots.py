"""Plots are PNGs, the same bytes each time, whatever the numbers and the labels look like."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from autoglm_ops.contracts.release import SliceResult
from autoglm_ops.contracts.training import TrainingRecord, Trial, TuningReport
from autoglm_ops.evaluation import plots

TRAINING = TrainingRecord(
    architecture="glm-small",
    parameters=1,
    plan_digest="",
    settings={},
    steps=2,
    epochs=1,
    samples=2,
    tokens=2,
    losses=((1, 0.7), (2, 0.5)),
    validation=((2, 0.6),),
    best_step=2,
    weights_sha256="",
)
TUNING = TuningReport(
    verdict="tuned",
    objective="macro_f1",
    direction="maximize",
    space={},
    trials=(
        Trial(number=0, params={}, state="complete", value=0.5),
        Trial(number=1, params={}, state="pruned", value=0.3),
        Trial(number=2, params={}, state="failed", value=None),
    ),
)
DAY = SliceResult(name="day=2026-01-01", rows=9, candidate=0.9, champion=0.8)


@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.confusion({"neg": {"neg": 3, "差评": 0}, "差评": {"neg": 1, "差评": 0}}),
        lambda: plots.confusion({str(a): {str(b): 0 for b in range(30)} for a in range(30)}),
        lambda: plots.days([DAY, DAY.model_copy(update={"champion": None})], "macro_f1"),
        lambda: plots.days([], "macro_f1"),
        lambda: plots.reliability([0.0, 0.5, 1.0], [True, False, True]),
        lambda: plots.training(TRAINING),
        lambda: plots.training(TRAINING.model_copy(update={"losses": (), "validation": ()})),
        lambda: plots.training(TRAINING.model_copy(update={"averaged_from": 1})),
        lambda: plots.trials(TUNING),
        lambda: plots.trials(TUNING.model_copy(update={"trials": ()})),
        lambda: plots.replay([3, 4], {"loop": [0.7, 0.8]}, [3], {4: "latency"}, {3: ["epochs", "learning_rate"]}),
    ],
)
def test_each_plot_is_a_png_with_the_same_bytes_again(draw: Callable[[], bytes], recwarn: pytest.WarningsRecorder) -> None:
    image = draw()
    assert image.startswith(b"\x89PNG")
    assert b"Software" not in image
    assert image == draw()
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]


def test_a_label_the_font_lacks_is_written_as_its_number() -> None:
    assert plots.tick("neg", 0) == "neg"
    assert plots.tick("差评", 1) == "#1"
    assert plots.tick("a very long label indeed", 2) == "#2"
