"""What a row weighs in training: nothing changes where nobody asked, weak labels teach and never judge, old rows weigh less."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.arrays import TokenArrays, write_arrays
from autoglm_ops.contracts.data import WEIGHTS_FILE
from autoglm_ops.data import weights
from autoglm_ops.data.rows import Row
from autoglm_ops.data.tables import Sample
from autoglm_ops.errors import Tampered


def row(key: str, text: str, label: str = "pos") -> Row:
    return Row(key, text, label, "2026-01-05", "s", 1)


def sample(key: str, day: str = "2026-01-05") -> Sample:
    return Sample(key, f"text {key}", "pos", day, "s", 1.0)


def test_a_weak_label_gives_way_to_one_that_somebody_gave_of_the_same_text() -> None:
    rows = [row("a", "same  text"), row("weak", "same text", "neg"), row("other", "alone", "neg")]
    assert [one.id for one in weights.believed(rows, {"weak": 0.5, "other": 0.5})] == ["a", "other"]
    assert weights.believed(rows, {}) == rows


def test_weak_labels_teach_and_never_judge() -> None:
    samples = {"train": [sample("a"), sample("b")], "validation": [sample("c"), sample("d")], "gate": [sample("e")]}
    found, dropped = weights.weigh(samples, {"a": 0.5, "c": 0.6, "e": 0.4}, 0, "2026-01-05")
    assert [one.weight for one in found["train"]] == [0.5, 1.0]
    assert [one.id for one in found["validation"]] == ["d"] and found["gate"] == []
    assert dropped == {"weak-label": 2}


@given(st.floats(0.5, 400), st.integers(0, 60))
def test_a_row_a_half_life_older_weighs_half(half_life: float, days: int) -> None:
    old = sample("a", f"2026-{1 + days // 28:02d}-{1 + days % 28:02d}")
    (found,) = weights.weigh({"train": [old]}, {}, half_life, "2026-06-01")[0]["train"]
    (double,) = weights.weigh({"train": [old]}, {}, half_life / 2, "2026-06-01")[0]["train"]
    assert 0 < found.weight < 1 and double.weight == pytest.approx(found.weight**2)


def test_equal_weights_leave_no_file_and_others_have_a_mean_of_one(tmp_path: Path) -> None:
    ids, labels = [[1, 2], [3]], [0, 1]
    write_arrays(tmp_path, "train", ids, labels, [1.0, 1.0])
    assert not (tmp_path / "train.weights.npy").exists() and TokenArrays.open(tmp_path, "train").weights is None
    write_arrays(tmp_path, "train", ids, labels, [1.0, 0.5])
    found = TokenArrays.open(tmp_path, "train").weights
    assert found is not None and found.tolist() == pytest.approx([4 / 3, 2 / 3])
    np.save(tmp_path / "train.weights.npy", np.ones(3, np.float32))
    with pytest.raises(Tampered, match="3 weights for 2 rows"):
        TokenArrays.open(tmp_path, "train")


def test_a_teachers_opinions_are_kept_with_their_rows_and_others_are_refused(tmp_path: Path) -> None:
    write_arrays(tmp_path, "train", [[1, 2], [3], [4]], [0, 1, 0], teacher=np.array([[0.9, 0.1], [0.2, 0.8], [0.5, 0.5]]))
    found = TokenArrays.open(tmp_path, "train").take(np.array([2, 1]))
    np.testing.assert_allclose(np.asarray(found.teacher), [[0.5, 0.5], [0.2, 0.8]], rtol=1e-6)
    np.save(tmp_path / "train.teacher.npy", np.ones((2, 2), np.float32))
    with pytest.raises(Tampered, match="2 opinions for 3 rows"):
        TokenArrays.open(tmp_path, "train")


def test_no_file_no_weights(tmp_path: Path) -> None:
    assert weights.read(tmp_path / WEIGHTS_FILE) == {}
    (tmp_path / WEIGHTS_FILE).write_text(json.dumps({"a": 0.5}))
    assert weights.read(tmp_path / WEIGHTS_FILE) == {"a": 0.5}
