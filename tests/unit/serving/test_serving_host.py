"""The model is exchanged when its name moves, under load, and never for one that cannot be trusted."""

from __future__ import annotations

import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from serving_parts import ByLength, Shelf, eventually, made, serving

from autoglm_ops.errors import Refused, Tampered, TryAgain
from autoglm_ops.serving.app import Parts
from autoglm_ops.serving.host import RETRY_SECONDS, ModelHost
from autoglm_ops.serving.metrics import Metrics


def test_a_moved_alias_is_picked_up(parts: Parts, shelf: Shelf) -> None:
    assert parts.host.current.ref.version == 1
    shelf.alias = "v2"
    assert eventually(lambda: parts.host.current.ref.version == 2)
    shelf.alias = "v1"
    assert eventually(lambda: parts.host.current.ref.version == 1)
    assert shelf.loads == ["v1", "v2", "v1"]


def test_swaps_under_load_drop_nothing_and_mix_nothing(tmp_path: Path) -> None:
    """Spec S7. v2 answers the opposite of v1, so an answer that carries the wrong version shows."""
    shelf = Shelf(v1=ByLength(seconds=0.004), v2=ByLength(seconds=0.004, flip=True))
    seen: Counter[int] = Counter()
    stop = threading.Event()
    with serving(tmp_path, shelf) as (http, _), ThreadPoolExecutor(8) as pool:

        def ask(worker: int) -> None:
            while not stop.is_set():
                answer = http.post("/v1/classify", json={"input": ["a", "bb"]})
                assert answer.status_code == 200
                body = answer.json()
                expected = ["neg", "pos"] if body["version"] == 1 else ["pos", "neg"]
                assert [row["label"] for row in body["results"]] == expected
                seen[body["version"]] += 1

        workers = [pool.submit(ask, worker) for worker in range(8)]
        for alias in ("v2", "v1", "v2", "v1", "v2"):
            before = seen[int(alias[1:])]
            shelf.alias = alias
            assert eventually(lambda before=before, alias=alias: seen[int(alias[1:])] > before + 5)
        stop.set()
        for worker in workers:
            worker.result(10)
    assert min(seen.values()) > 10


@pytest.mark.parametrize(
    ("broken", "word"),
    [
        (Tampered("model.safetensors was changed"), "tampered"),
        (TryAgain("the store is away"), "away"),
        (KeyError("hidden_size"), "broken"),
        (RuntimeError("weights do not fit"), "broken"),
    ],
)
def test_a_model_that_cannot_be_had_is_refused_and_the_old_one_serves_on(tmp_path: Path, broken: Exception, word: str) -> None:
    shelf = Shelf(v1=ByLength(), v2=broken, v3=ByLength())
    with serving(tmp_path, shelf) as (http, parts):
        shelf.alias = "v2"
        assert eventually(lambda: parts.host.refusal is not None)
        assert http.post("/v1/classify", json={"input": "ab"}).json()["version"] == 1
        model = http.get("/v1/models").json()["data"][0]
        assert (model["version"], model["refused"]["version"]) == (1, 2)
        assert type(broken).__name__ in model["refused"]["reason"]
        assert f'autoglm_swap_failures_total{{reason="{word}"}} 1.0' in http.get("/metrics").text
        assert shelf.loads == ["v1", "v2"], "a refused model is not fetched at every look"
        shelf.alias = "v3"
        assert eventually(lambda: parts.host.current.ref.version == 3)
        assert http.get("/v1/models").json()["data"][0]["refused"] is None


def test_a_model_that_cannot_answer_does_not_take_over(tmp_path: Path) -> None:
    class Nan(ByLength):
        def predict(self, texts: list[str], batch_size: int) -> NDArray[np.float64]:  # type: ignore[override]
            return np.full((len(texts), 2), np.nan)

    shelf = Shelf(v1=ByLength(), v2=Nan())
    with made(tmp_path, shelf) as parts:
        shelf.alias = "v2"
        assert eventually(lambda: parts.host.refusal is not None)
        assert parts.host.current.ref.version == 1


def test_a_refused_model_is_tried_again_later(tmp_path: Path) -> None:
    now = [1000.0]
    shelf = Shelf(v1=ByLength(), v2=Tampered("changed"))
    host = ModelHost(shelf, Metrics(), refresh_seconds=3600, clock=lambda: now[0])
    host.start()
    shelf.alias = "v2"
    with pytest.raises(Tampered):
        host.poll()
    shelf.models["v2"] = ByLength()
    host.poll()
    assert host.current.ref.version == 1
    now[0] += RETRY_SECONDS
    host.poll()
    assert host.current.ref.version == 2 and host.refusal is None
    host.stop()


def test_a_registry_that_is_away_changes_nothing_and_is_said_once(
    parts: Parts, shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.away = TryAgain("MLflow does not answer")
    assert eventually(lambda: b"autoglm_registry_up 0.0" in parts.metrics.render())
    assert eventually(lambda: b"autoglm_lookup_failures_total 3.0" in parts.metrics.render())
    assert parts.host.current.ref.version == 1
    assert [record.message for record in caplog.records].count("serving autoglm v1 on: TryAgain: MLflow does not answer") == 1
    shelf.away = None
    shelf.alias = "v2"
    assert eventually(lambda: parts.host.current.ref.version == 2)
    assert b"autoglm_registry_up 1.0" in parts.metrics.render()


@pytest.mark.parametrize("error", [Refused("no champion"), TryAgain("away")])
def test_a_server_that_has_nothing_to_serve_does_not_start(error: Exception) -> None:
    shelf = Shelf(v1=ByLength())
    shelf.away = error
    host = ModelHost(shelf, Metrics(), refresh_seconds=1)
    with pytest.raises(type(error)):
        host.start()
    host.stop()
