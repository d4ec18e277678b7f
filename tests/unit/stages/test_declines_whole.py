"""Nights that get harder, on heads too narrow for them: the loop gives the next run other heads, and that run is better for it (spec T5)."""

from __future__ import annotations

from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.inputs import RunInfo
from autoglm_ops.contracts.production import DriftOfDay
from autoglm_ops.contracts.release import Champion, EvaluationReport, Interval
from autoglm_ops.settings import Settings, load
from autoglm_ops.stages import loop
from autoglm_ops.stages.runs import Closed
from autoglm_ops.training.models import ModelSpec, build, shape_of

PARAMS = Path(__file__).parents[3] / "params.yaml"
SHAPE = ("model.name=glm-tiny", "model.hidden_size=32", "model.heads=8")
FIRST, KEYS, BATCH, STEPS = date(2026, 1, 5), 16, 48, 140
NIGHTS = (4, 7, 10, 14)
"""How many pairs stand in a row, night by night."""


def rows(count: int, pairs: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Associative recall: so many keys, each with one of two values, then one of the keys; the label is its value."""
    draw = np.random.default_rng(seed)
    keys = np.argsort(draw.random((count, KEYS)), axis=1)[:, :pairs]
    values = draw.integers(0, 2, (count, pairs))
    asked = draw.integers(0, pairs, (count, 1))
    query = np.take_along_axis(keys, asked, 1)
    ids = np.concatenate([3 + 2 * keys + values, 3 + 2 * KEYS + query], axis=1)
    return torch.from_numpy(ids), torch.from_numpy(np.take_along_axis(values, asked, 1)[:, 0])


def night(model: dict[str, object], pairs: int) -> float:
    """Train on a night's rows; the share of right answers on held-out ones."""
    torch.set_num_threads(1)
    meta = TokenMeta(vocabulary=3 + 3 * KEYS, pad_id=0, max_length=32, labels=("a", "b"), rows={})
    module = build(ModelSpec.of(model, meta, Path()), seed=1)
    optimizer = torch.optim.AdamW(module.parameters())
    ids, labels = rows(STEPS * BATCH, pairs, seed=1)
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = 5e-3 * min(1.0, (step + 1) / 20) * (1 - step / STEPS)
        part = slice(step * BATCH, (step + 1) * BATCH)
        module(input_ids=ids[part], attention_mask=torch.ones_like(ids[part]), labels=labels[part]).loss.backward()
        torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    ids, labels = rows(500, pairs, seed=999)
    with torch.inference_mode():
        found = module.eval()(input_ids=ids, attention_mask=torch.ones_like(ids)).logits.argmax(-1)
    return float((found == labels).double().mean())


def closed(home: Path, day: date, value: float) -> None:
    """A run of `day` as close_run leaves it."""
    root, run = home / "runs" / f"run{day}", f"run{day}"
    told = {
        "run": run,
        "workspace": str(root),
        "dag": "daily_retrain",
        "dag_run_id": run,
        "decision": "run",
        "reason": "new run",
    }
    at = (day - FIRST).total_seconds()
    RunInfo.model_validate({**told, "as_of": day.isoformat(), "content_key": run, "opened": at}).write(
        root / "inputs" / "run.json"
    )
    exact = Interval(estimate=value, low=value, high=value)
    EvaluationReport(
        metric="accuracy", rows=500, candidate=exact, champion=None, baselines={}, against_champion=None, against_majority=exact,
        p_value_champion=None, p_value_majority=0.5, slices=(), confusion={}, model_bytes=1, champion_bytes=None,
    ).write(root / "out" / "evaluate" / "evaluation.json")  # fmt: skip
    Closed(run=run, commit="c", tag=None).write(root / ".closed.json")


def settings_of(declines: int, *more: str) -> Settings:
    return load(PARAMS, overrides=[*SHAPE, f"feedback.declines={declines}", *more], environ={})


@pytest.fixture(autouse=True)
def _no_champion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing was promoted and nobody asked: production says nothing, and no registry is opened to find that out."""
    quiet = DriftOfDay(day=FIRST.isoformat(), champion=Champion(), reason="there is no champion yet")
    monkeypatch.setattr(loop.production, "drift_of", lambda *_: quiet)


def model_of_next_run(settings: Settings, home: Path, day: date) -> dict[str, object]:
    """The `model` section as `open run` resolves it, by the patches of its snapshot."""
    tree, sources = settings.model_dump(mode="json"), dict[str, str]()
    loop.apply_fixed(tree, sources, PatchSet(patches=loop.history(home).active(day).patches))
    return dict(tree["model"])


def test_the_next_run_has_other_heads_and_is_better_for_it(tmp_path: Path) -> None:
    on, off = settings_of(3), settings_of(0)
    today, unchanged = FIRST, 0.0
    for place, pairs in enumerate(NIGHTS):
        today, unchanged = FIRST + timedelta(days=place), night(on.model.model_dump(), pairs)
        closed(tmp_path, today, unchanged)
        assert loop.signals(on, tmp_path, today).fired == (place == 3)
    assert not loop.signals(off, tmp_path, today).fired
    assert not loop.patch(off, tmp_path, today, dry=True).patches
    assert loop.signals(on, tmp_path, today).signals[-1].reason.startswith("declining: accuracy")
    [patch] = loop.patch(on, tmp_path, today).patches
    assert (patch.key, patch.old, patch.new, patch.signal) == ("model.heads", 8, 4, "decline")
    assert patch.evidence["signals"]["decline"]["window"] == [FIRST.isoformat(), today.isoformat()]
    changed = model_of_next_run(on, tmp_path, today + timedelta(days=1))
    meta = TokenMeta(vocabulary=51, pad_id=0, max_length=32, labels=("a", "b"), rows={})
    assert shape_of(ModelSpec.of(changed, meta, Path())).heads == 4
    assert night(changed, NIGHTS[-1]) > unchanged + 0.05, "the same rows and seed, switched off: the last night again"


def test_declines_count_anew_after_a_change_and_undo_takes_it_back(tmp_path: Path) -> None:
    settings = settings_of(3)
    days = [FIRST + timedelta(days=place) for place in range(6)]
    for place, day in enumerate(days):
        closed(tmp_path, day, 0.9 - 0.05 * place)
    assert [loop.signals(settings, tmp_path, day).fired for day in days[:4]] == [False, False, False, True]
    assert len(loop.patch(settings, tmp_path, days[3]).patches) == 1
    later = loop.signals(settings, tmp_path, days[5])
    assert not later.fired and later.signals[-1].reason.startswith("too-few-runs: 2")
    loop.history(tmp_path).undo(1, days[5])
    assert model_of_next_run(settings, tmp_path, days[5])["heads"] == 8


def test_a_person_who_sets_the_heads_and_a_model_with_heads_of_its_own_are_left_alone(tmp_path: Path) -> None:
    for place in range(4):
        closed(tmp_path, FIRST + timedelta(days=place), 0.9 - 0.05 * place)
    today = FIRST + timedelta(days=3)
    folder = settings_of(3, "model.name=their-model", "model.hidden_size=null", "model.heads=null")
    assert loop.signals(folder, tmp_path, today).fired
    assert not loop.patch(folder, tmp_path, today).patches
    assert loop.patch(settings_of(3), tmp_path, today).patches[0].new == 4
    tree, sources = settings_of(3).model_dump(mode="json"), {"model.heads": "--set model.heads"}
    loop.apply_fixed(tree, sources, loop.history(tmp_path).active(today))
    assert tree["model"]["heads"] == 8
