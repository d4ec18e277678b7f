"""Packed rows: every step takes exactly the batch, nothing is left out, and apart or packed the loss is the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.errors import BadData
from autoglm_ops.training.lm_job import CausalModel
from autoglm_ops.training.objective import IGNORED, CausalLM
from autoglm_ops.training.packed import PackedFeed, PackedJudge, PackedRows, positions_of, steps_in
from autoglm_ops.training.plain import PlainEngine
from autoglm_ops.training.recipe import Recipe

SEGMENTS = np.array([[1, 1, 1, 2, 2, 0, 0, 0], [1, 2, 2, 2, 3, 3, 3, 3], [1] * 8])


def write(folder: Path, rows: int = 3) -> Path:
    folder.mkdir()
    random = np.random.default_rng(0)
    segments = SEGMENTS[np.arange(rows) % 3].astype(np.int32)
    tokens = np.where(segments > 0, random.integers(1, 40, segments.shape), 0).astype(np.int32)
    for place, (start, stop) in enumerate([(0, rows // 2), (rows // 2, rows)]):
        np.save(folder / f"part-{place:06d}.tokens.npy", tokens[start:stop])
        np.save(folder / f"part-{place:06d}.segments.npy", segments[start:stop])
    return folder


def recipe(batch: int, **more: Any) -> Recipe:
    given = {
        "learning_rate": 1e-2, "weight_decay": 0.0, "batch_size": batch, "warmup_share": 0.1, "schedule": "linear", "label_smoothing": 0.0,
        "token_dropout": 0.0, "gradient_clip": 1.0, "steps": 4, "report": (4,), "seed": 3,
    }  # fmt: skip
    return Recipe(**{**given, **more})


def test_positions_begin_anew_with_each_document() -> None:
    assert positions_of(SEGMENTS)[0].tolist() == [0, 1, 2, 0, 1, 0, 1, 2]
    assert positions_of(SEGMENTS)[1].tolist() == [0, 0, 1, 2, 0, 1, 2, 3]


def test_a_first_token_and_a_pad_are_never_asked(tmp_path: Path) -> None:
    labels = PackedRows(write(tmp_path / "rows")).batch([0, 1, 2], 0, packed=True).labels
    assert (labels != IGNORED).sum(1).tolist() == [3, 5, 7]


class _Rank:
    """A rank that takes no step."""

    norm = 0.0

    def __init__(self, rank: int, ranks: int, accumulation: int) -> None:
        self.reader, self.readers, self.accumulation = rank, ranks, accumulation


@settings(max_examples=20)
@given(rows=st.integers(2, 12), ranks=st.integers(1, 4), accumulation=st.integers(1, 3), micro=st.integers(1, 3))
def test_the_global_batch_is_exact_and_every_row_comes_as_often(
    rows: int, ranks: int, accumulation: int, micro: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = write(tmp_path_factory.mktemp("packed") / "rows", rows)
    batch = ranks * accumulation * micro
    opened = PackedRows(folder)
    seen: list[int] = []
    for step in range(1, 2 * rows + 1):
        feeds = [PackedFeed(opened, recipe(batch), _Rank(rank, ranks, accumulation), 0, True) for rank in range(ranks)]  # type: ignore[arg-type]
        chosen = [feed.chosen(step).tolist() for feed in feeds]
        assert all(one == chosen[0] for one in chosen)
        seen += chosen[0]
        if step == 1:
            taken = [feed.take(step) for feed in feeds]
            assert all(one.samples == batch and len(one.batches) == accumulation for one in taken)
            assert sum(len(part.labels) for one in taken for part in one.batches) == batch
    whole = len(seen) // rows * rows
    assert np.bincount(seen[:whole], minlength=rows).tolist() == [whole // rows] * rows


def test_a_model_that_cannot_keep_documents_apart_gets_them_apart(tmp_path: Path) -> None:
    """The same loss and the same gradient, padded a document a row or packed."""
    torch.set_num_threads(1)
    rows = PackedRows(write(tmp_path / "rows"))
    overrides = {"hidden_size": 32, "layers": 1, "heads": 4, "dropout": 0.0}
    model = CausalModel(name="glm-tiny", folder=None, overrides=overrides, vocabulary=40, pad_id=0, length=8)
    norms, scores = [], []
    for packed in (True, False):
        engine = PlainEngine(model.build(5), recipe(3), 1, CausalLM())
        scores.append(PackedJudge(rows, CausalLM(), 0, packed).score(engine, 0))
        engine.step([rows.batch([0, 1, 2], 0, packed)], 0.0)
        norms.append(engine.norm)
    assert scores[0] == pytest.approx(scores[1], rel=1e-5)
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_data_that_fills_no_batch_is_refused() -> None:
    assert steps_in(1024, 1024, 1.0, None) == 1
    assert steps_in(1000, 1024, 3.0, 1) == 1
    with pytest.raises(BadData, match="do not fill one global batch of 1024"):
        steps_in(1000, 1024, 1.0, None)
