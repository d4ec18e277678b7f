"""The loop's steps as a person and as the DAG call them: rules of one's own, the queue of answers to label, what is forgotten."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
import yaml

from autoglm_ops.cli.main import main
from autoglm_ops.contracts.feedback import Signal
from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import FeedbackItem, Prediction
from autoglm_ops.feedback.intake import Intake

ROOT = Path(__file__).parents[3]
LITERAL = """
- {when: [latency > 0.5], key: train.learning_rate, multiply: 0.9, reason: latency over its threshold}
- {when: [quality < 0.9], key: model.hidden_size, add: 16, reason: accuracy under its target}
"""


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout with a search space of nothing, and a home."""
    tree = yaml.safe_load((ROOT / "params.yaml").read_text())
    tree["tune"]["space"] = {}
    tree["feedback"]["rules"] = "mine.yaml"
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree))
    (tmp_path / "mine.yaml").write_text(LITERAL)
    monkeypatch.setenv("AUTOGLM_CHECKOUT", str(tmp_path))
    monkeypatch.setenv("AUTOGLM_HOME", str(tmp_path / "home"))
    return tmp_path


def call(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    with pytest.raises(SystemExit) as ended:
        main([*arguments])
    said = capsys.readouterr()
    assert ended.value.code == code, said
    return said.out if code == 0 else said.err


def say(place: Path, **values: tuple[float, float]) -> None:
    """What the step `signals` leaves of 2026-01-05: signals by name with their intervals, none fired by themselves."""
    said = [
        Signal.model_validate(
            {
                "name": name,
                "fired": False,
                "value": low,
                "threshold": 1.0,
                "low": low,
                "high": high,
                "rows": 300,
                "window": ("2026-01-05", "2026-01-05"),
                "reason": f"{name}: measured",
            }
        )
        for name, (low, high) in values.items()
    ]
    SignalsOfDay(day="2026-01-05", signals=tuple(said)).write(place / "home" / "feedback" / "signals" / "2026-01-05.json")


def test_the_two_literal_rules_run_from_yaml(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(place, latency=(0.7, 0.8), quality=(0.80, 0.84))
    told = call(capsys, "feedback", "patch", "--dry-run", "--as-of", "2026-01-05")
    assert "train.learning_rate: 0.003 -> 0.0027" in told and "model.hidden_size: 128 -> 144" in told
    assert json.loads(call(capsys, "feedback", "patches", "--as-of", "2026-01-05", "--json")) == []
    patches = json.loads(call(capsys, "feedback", "patch", "--as-of", "2026-01-05", "--json"))
    assert [(patch["key"], patch["old"], patch["new"]) for patch in patches] == [
        ("train.learning_rate", 0.003, 0.0027), ("model.hidden_size", 128, 144),
    ]  # fmt: skip
    assert json.loads(call(capsys, "feedback", "patch", "--as-of", "2026-01-05", "--json")) == []
    back = json.loads(call(capsys, "feedback", "undo", "2", "--as-of", "2026-01-05", "--json"))
    assert [(patch["key"], patch["new"]) for patch in back] == [("model.hidden_size", 128), ("train.learning_rate", 0.003)]


def test_rules_whose_limits_are_not_passed_move_nothing(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(place, latency=(0.4, 0.8), quality=(0.89, 0.93))
    assert json.loads(call(capsys, "feedback", "patch", "--as-of", "2026-01-05", "--json")) == []


@pytest.mark.parametrize(
    ("content", "told"), [(None, "cannot be read"), ("a: 1", "must be a list"), ("- {when: [", "mine.yaml")]
)
def test_a_broken_file_of_rules_is_one_message(
    place: Path, capsys: pytest.CaptureFixture[str], content: str | None, told: str
) -> None:
    say(place, latency=(0.7, 0.8))
    (place / "mine.yaml").unlink() if content is None else (place / "mine.yaml").write_text(content)
    assert told in call(capsys, "feedback", "patch", "--as-of", "2026-01-05", code=2)


def test_the_queue_is_written_filled_in_and_read_back(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = Intake(place / "home" / "serving" / "requests.db")
    model = ModelRef(name="autoglm", version=1, digest="d" * 64)
    for key, label in (("a", "pos"), ("b", "neg")):
        fields = {"id": key, "text": f"text {key}", "label": label, "score": 0.6, "at": time.time(), "event_time": "2026-01-05"}
        requests.record([Prediction.model_validate({**fields, "model": model})])
    requests.close()
    assert [row["id"] for row in json.loads(call(capsys, "annotate", "--json"))] == ["a", "b"]
    path = place / "queue.csv"
    call(capsys, "annotate", "--to", str(path))
    path.write_text(path.read_text().replace("uncertain,\n", "uncertain,neg\n", 1))
    counts = json.loads(call(capsys, "annotate", "--from", str(path), "--by", "ann", "--json"))
    assert counts["accepted"] == 1
    assert [row["id"] for row in json.loads(call(capsys, "annotate", "--json"))] == ["b"]
    path.write_text(path.read_text().replace(",neg\n", ",nonsense\n"))
    assert json.loads(call(capsys, "annotate", "--from", str(path), "--by", "ann", "--json"))["refused"] == {"unknown-label": 1}
    assert "not both" in call(capsys, "annotate", "--from", str(path), "--to", str(path), code=2)


def test_status_names_who_is_not_believed(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    requests = Intake(place / "home" / "serving" / "requests.db")
    model = ModelRef(name="autoglm", version=1, digest="d" * 64)
    fields = {"label": "pos", "score": 0.6, "at": time.time(), "event_time": "2026-01-05", "model": model}
    requests.record([Prediction.model_validate({**fields, "id": f"{n}", "text": f"text {n}"}) for n in range(100)])
    items = [{"id": f"{n}", "label": "neg" if n % 4 == 0 else "pos", "source": f"reader-{n % 4}"} for n in range(100)]
    requests.feedback([FeedbackItem.model_validate(item) for item in items], time.time())
    requests.close()
    (gone,) = json.loads(call(capsys, "feedback", "status", "--json"))["distrusted"]
    assert (gone["day"], gone["source"]) == ("2026-01-05", "reader-0")
    assert "not believed on 2026-01-05: reader-0, outlier" in call(capsys, "feedback", "status").replace("\n", " ")


def test_drift_and_pruning_say_what_they_found(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "there is no champion yet" in call(capsys, "feedback", "drift", "--as-of", "2026-01-05")
    assert "0 answers would be forgotten" in call(capsys, "feedback", "prune", "--dry-run", "--as-of", "2026-01-05")
