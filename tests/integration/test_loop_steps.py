"""collect → drift → signals → patch → the next run's snapshot and gate, on a real registry, store and requests database."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
from release_workspace import Plot, make_origin, make_workspace

from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.contracts.serving import FeedbackItem, Prediction
from autoglm_ops.monitoring.drift import profile
from autoglm_ops.settings import Settings, load
from autoglm_ops.stages import loop, runner, serving, snapshot

DAY = date(2026, 1, 6)
WORDS = "这本书内容很好看写得不错推荐大家买来读一读"
OTHER = "宾馆房间太小早餐很差服务员态度冷淡空调坏了"


def texts(alphabet: str, count: int) -> list[str]:
    draw = random.Random(alphabet)
    return ["".join(draw.choices(alphabet, k=draw.randint(10, 40))) + f" {number}" for number in range(count)]


class Place:
    """A home with a champion that was trained on book reviews."""

    def __init__(self, base: Path) -> None:
        self.origin, self.home, model = make_origin(base / "origin"), base / "home", base / "model"
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "model.safetensors").write_bytes(b"\1" * 5000)
        known = texts(WORDS, 600)
        profile(known, ["pos", "neg"] * 300).write(model / "reference.json")
        self.root = make_workspace(self.origin, self.home, model, Plot(run="run1", score=0.9))
        for name in ("track", "register", "promote"):
            runner.run_stage(name, self.root)
        self.settings: Settings = load(self.origin / "params.yaml", environ={})

    def ask(self, day: date, alphabet: str, right: float, labelled: int, seconds: float = 0.1) -> None:
        """300 requests of a day, answered by the champion with that share of right answers, of which some get a label."""
        champion = snapshot.champion(self.settings, self.home).model
        assert champion is not None
        requests, draw = serving.requests(self.settings, self.home), random.Random(1)
        truth = [draw.choice(("neg", "pos")) for _ in range(300)]
        other = {"neg": "pos", "pos": "neg"}
        rows = []
        for number, (text, label) in enumerate(zip(texts(alphabet, 300), truth, strict=True)):
            fields = {"id": f"{day}.{number}", "text": text, "score": 0.7, "at": time.time(), "event_time": day.isoformat()}
            said = label if draw.random() < right else other[label]
            rows.append(Prediction.model_validate({**fields, "label": said, "model": champion}))
            requests.observe(day.isoformat(), champion.version, 1, seconds, ok=True)
        requests.record(rows)
        items = [
            FeedbackItem(id=row.id, label=label, source=f"r{place % 5}")
            for place, (row, label) in enumerate(zip(rows[:labelled], truth[:labelled], strict=True))
        ]
        requests.feedback(items, time.time())
        requests.close()

    def fired(self, day: date) -> set[str]:
        return {signal.name for signal in loop.signals(self.settings, self.home, day, self.origin).signals if signal.fired}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    yield Place(tmp_path_factory.mktemp("loop"))


def test_a_day_like_the_training_texts_fires_nothing(place: Place) -> None:
    place.ask(DAY, WORDS, 0.92, 300)
    assert place.fired(DAY) == set()
    moved = loop.drift(place.settings, place.home, DAY)
    assert (moved.asked, moved.labelled) == (300, 300) and {report.kind for report in moved.drift} == {"psi", "kl", "ks"}


def test_drift_is_seen_without_one_label_and_opens_the_gate_for_newer_data(place: Place) -> None:
    day = date(2026, 1, 7)
    place.ask(day, OTHER, 0.5, 0)
    assert place.fired(day) == {"drift"}
    world = snapshot.take(place.settings, place.origin, place.home, day, day)
    assert world.signals.named("drift") is not None and world.signals.champion.model == world.champion.model
    world.write(place.root)
    assert SignalsOfDay.read(place.root / "inputs" / "signals.json") == world.signals
    assert snapshot.take(place.settings, place.origin, place.home, DAY, day).signals.named("drift") is None


def test_slow_answers_move_size_length_and_batch_window_and_an_undo_takes_it_back(place: Place) -> None:
    day = date(2026, 1, 8)
    place.ask(day, WORDS, 0.92, 300, seconds=3.0)
    assert place.fired(day) == {"latency"}
    made = {patch.key: patch.new for patch in loop.patch(place.settings, place.home, day).patches}
    assert made == {"model.hidden_size": 112, "tokenize.max_length": 96, "serving.batch_wait_ms": 1.0}
    assert not loop.patch(place.settings, place.home, day).patches
    kept = loop.compiled(place.home, day)  # the round that patched stays as the day's record, with what it left alone
    assert {patch.key for patch in kept.patches} == set(made) and "no-signal" in {one.word for one in kept.refused}
    tree = place.settings.model_dump(mode="json")
    loop.apply_fixed(tree, {}, loop.history(place.home).active(day))
    assert tree["model"]["hidden_size"] == 112 and tree["tokenize"]["max_length"] == 96
    assert tree["serving"]["batch_wait_ms"] == 2  # the server's own, which reads it when it starts
    loop.history(place.home).undo(3, day)
    tree = place.settings.model_dump(mode="json")
    loop.apply_fixed(tree, {}, loop.history(place.home).active(day))
    assert tree["tokenize"]["max_length"] == 128


def test_metrics_of_prometheus_stand_in_for_the_counts(place: Place) -> None:
    from autoglm_ops.serving.metrics import Metrics

    metrics, settings = (
        Metrics(),
        place.settings.model_copy(update={"monitor": place.settings.monitor.model_copy(update={"metrics": "metrics.txt"})}),
    )
    for _ in range(100):
        metrics.request("/v1/classify", "POST", 200, 4.0)
        metrics.request("/v1/models", "GET", 200, 0.001)
    for _ in range(20):
        metrics.request("/v1/classify", "POST", 503, 0.1)
    (place.origin / "metrics.txt").write_bytes(metrics.render())
    found = loop.signals(settings, place.home, DAY, place.origin)
    assert {signal.name for signal in found.signals if signal.fired} == {"latency", "error-rate"}


def test_what_is_no_champion_of_this_day_says_nothing(place: Place) -> None:
    quiet = loop.signals(place.settings, place.home, date(2026, 3, 1), place.origin)
    assert not quiet.fired and quiet.reason.startswith("no labels came back") and "nothing was asked" in quiet.reason


def test_a_day_that_was_tuned_on_rests_and_its_signals_stay_said(place: Place) -> None:
    from autoglm_ops.contracts.inputs import RunInfo
    from autoglm_ops.stages import runs

    day = date(2026, 1, 7)
    root = place.home / "runs" / "retuned"
    fields = {"run": "retuned", "workspace": str(root), "dag": "feedback_retune", "dag_run_id": "d", "decision": "run"}
    fields |= {"reason": "new run", "as_of": day.isoformat(), "content_key": "c", "opened": time.time()}
    RunInfo.model_validate(fields).write(root / "inputs" / "run.json")
    assert loop.signals(place.settings, place.home, day, place.origin).fired
    runs.Closed(run="retuned", commit="c", tag=None).write(root / ".closed.json")
    rested = loop.signals(place.settings, place.home, day, place.origin)
    assert not rested.fired and rested.reason.startswith("resting: run retuned") and rested.named("drift") is not None
    later = day.replace(day=9)
    place.ask(later, OTHER, 0.5, 0)
    assert loop.signals(place.settings, place.home, later, place.origin).fired
