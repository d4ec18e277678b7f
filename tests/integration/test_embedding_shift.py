"""A published model with its sample of held-out texts, and requests like them and unlike them."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest

from autoglm_ops.contracts.feedback import EmbeddingSample
from autoglm_ops.contracts.record import digest_path
from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.data import tokenizer
from autoglm_ops.monitoring import embedding
from autoglm_ops.settings import Settings, load
from autoglm_ops.stages import production
from autoglm_ops.training import artifact
from autoglm_ops.training.models import ModelSpec, build
from autoglm_ops.training.pooled import pooled

SETTINGS = load(Path(__file__).parents[2] / "params.yaml", environ={})
BOOKS, HOTELS = "这本书内容很好看写得不错推荐大家买来读一读", "宾馆房间太小早餐很差服务员态度冷淡空调坏了"


def texts(alphabet: str, count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return ["".join(draw.choices(alphabet, k=draw.randint(10, 40))) for _ in range(count)]


@pytest.fixture(scope="module")
def champion(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny GLM, and what it makes of 200 texts about books."""
    base = tmp_path_factory.mktemp("champion")
    words, staged = tokenizer.train(texts(BOOKS + HOTELS, 200, 0), 64, 3), base / "staged"
    shape = {"hidden_size": 32, "layers": 1, "heads": 2, "dropout": 0.0}
    fields = {"name": "glm-tiny", "folder": None, "overrides": shape, "vocabulary": words.get_vocab_size(), "pad_id": 0}
    spec = ModelSpec.model_validate({**fields, "max_length": 48, "labels": ("neg", "pos")})
    module = build(spec, 1).eval()
    tokenizer.save(words, staged, 48)
    module.save_pretrained(staged)
    rows = [np.asarray(ids, np.int32) for ids in tokenizer.encode(words, texts(BOOKS, 200, 1), 48)]
    vectors = embedding.bounded(pooled(module, rows, 0)).tolist()
    EmbeddingSample(width=32, vectors=tuple(tuple(row) for row in vectors)).write(staged / "embeddings.json")
    artifact.publish(staged, base / "model", architecture=type(module).__name__, labels=spec.labels, max_length=48)
    return base / "model"


def seen(home: Path, champion: Path, asked: list[str], settings: Settings = SETTINGS) -> list[tuple[str, int, bool]]:
    model = ModelRef(name="autoglm", version=1, digest=digest_path(champion))
    found = production._embedded(settings, home, champion, model, asked)
    return [(report.kind, report.rows, report.drifted) for report in found]


def test_requests_like_the_held_out_texts_are_no_shift_and_others_are(champion: Path, tmp_path: Path) -> None:
    assert seen(tmp_path, champion, texts(BOOKS, 300, 2)) == [("mmd", 300, False)]
    assert seen(tmp_path, champion, texts(HOTELS, 300, 2)) == [("mmd", 300, True)]


def test_the_same_question_is_answered_from_what_was_kept(champion: Path, tmp_path: Path) -> None:
    first = seen(tmp_path, champion, texts(HOTELS, 300, 3))
    (kept,) = (tmp_path / "scratch" / "embeddings").iterdir()
    written = kept.stat().st_mtime_ns
    assert seen(tmp_path, champion, texts(HOTELS, 300, 3)) == first and kept.stat().st_mtime_ns == written


def test_it_is_left_out_where_it_is_switched_off(champion: Path, tmp_path: Path) -> None:
    off = SETTINGS.model_copy(update={"monitor": SETTINGS.monitor.model_copy(update={"embedding": 0.0})})
    assert seen(tmp_path, champion, texts(HOTELS, 300, 4), off) == []
