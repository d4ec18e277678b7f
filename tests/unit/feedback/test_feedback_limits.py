"""Feedback that is late, replayed, from the future, implied or hostile; what is asked of a person; what is forgotten."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import FeedbackItem, Prediction
from autoglm_ops.errors import BadData
from autoglm_ops.feedback import annotation
from autoglm_ops.feedback.implied import CONFIDENCE, MOST, implied
from autoglm_ops.feedback.intake import Intake

NOW = 1_770_000_000.0
DAY = 86_400.0
MODEL = ModelRef(name="autoglm", version=3, digest="d" * 64)


def answer(
    key: str, label: str = "pos", score: float = 0.75, day: str = "2026-01-05", text: str = "", at: float | None = None
) -> Prediction:
    said, asked = text or f"text {key}", NOW if at is None else at
    return Prediction(id=key, model=MODEL, text=said, label=label, score=score, at=asked, event_time=day)


def says(key: str, label: str | None = None, source: str = "shop", **more: object) -> FeedbackItem:
    return FeedbackItem.model_validate({"id": key, "label": label, "source": source, **more})


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    made = Intake(tmp_path / "requests.db", keep_days=90)
    yield made
    made.close()


def test_feedback_from_the_future_and_on_old_answers_is_refused_by_word(intake: Intake) -> None:
    intake.record([answer("a")])
    assert intake.feedback([says("a", "neg", at=NOW + 2 * DAY)], NOW).refused == {"future": 1}
    assert intake.feedback([says("a", "neg")], NOW + 91 * DAY).refused == {"late": 1}
    assert intake.labelled() == []
    assert intake.feedback([says("a", "neg")], NOW + 89 * DAY).accepted == 1


def test_a_replay_of_what_was_replaced_since_changes_nothing(intake: Intake) -> None:
    intake.record([answer("a")])
    intake.feedback([says("a", "pos", at=NOW + 10)], NOW + 10)
    assert intake.feedback([says("a", "neg", at=NOW + 20)], NOW + 20).replaced == 1
    assert intake.feedback([says("a", "pos", at=NOW + 10)], NOW + 30).refused == {"outdated": 1}
    assert [row.label for row in intake.labelled()] == ["neg"]


def test_a_hundred_thousand_repeats_are_one_label(intake: Intake) -> None:
    intake.record([answer("a")])
    counts = intake.feedback([says("a", "neg")] * 100_000, NOW)
    assert (counts.accepted, counts.repeated) == (1, 99_999)
    assert [source.labels for source in intake.sources()] == [1]


@pytest.mark.parametrize(
    "bad", [{"at": float("nan")}, {"rating": 0}, {"behaviour": "stared"}, {"rating": 1, "behaviour": "copied"}]
)
def test_feedback_that_says_nothing_clear_is_no_feedback(bad: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"Input should be|exactly one|finite"):
        says("a", None, **bad)


def test_acts_imply_labels_with_a_weight_until_somebody_says_one(intake: Intake, tmp_path: Path) -> None:
    intake.record([answer("a"), answer("b", "neg"), answer("c"), answer("d", "neg")])
    acts = [("a", "accepted"), ("b", "undone"), ("c", "copied")]
    counts = intake.feedback([says(key, behaviour=act) for key, act in acts], NOW)
    assert counts.accepted == 3
    assert [(row.id, row.label, row.weight) for row in intake.implied()] == [
        ("a", "pos", 0.5),
        ("b", "pos", 0.5),
        ("c", "pos", 0.6),
    ]
    intake.feedback([says("c", "neg")], NOW)
    assert [row.id for row in intake.implied()] == ["a", "b"] and [row.id for row in intake.labelled()] == ["c"]
    intake.export(tmp_path / "out")
    lines = [json.loads(line) for line in (tmp_path / "out" / "labels.jsonl").read_text().splitlines()]
    assert [(line["id"], line.get("weight")) for line in lines] == [("a", 0.5), ("b", 0.5), ("c", None)]


def test_no_number_of_acts_is_a_statement() -> None:
    assert implied("pos", ["copied"] * 50, ["neg", "pos"]) == ("pos", MOST)
    assert implied("pos", ["accepted", "undone"], ["neg", "pos"]) is None
    assert implied("a", ["undone"], ["a", "b", "c"]) is None
    assert all(abs(value) < MOST for value in CONFIDENCE.values())


def test_a_hostile_reporter_of_the_day_teaches_nothing(intake: Intake, tmp_path: Path) -> None:
    flip, keys = {"pos": "neg", "neg": "pos"}, [f"{n:03d}" for n in range(200)]
    intake.record([answer(key, "pos" if n % 2 else "neg") for n, key in enumerate(keys)])
    items = []
    for n, key in enumerate(keys):
        truth = "pos" if n % 2 else "neg"
        honest = truth if n % 10 else flip[truth]  # the model is right nine times of ten
        items.append(says(key, honest if n % 5 else flip[honest], source=f"reporter-{n % 5}"))
    intake.feedback(items, NOW)
    assert set(intake.distrusted()) == {("2026-01-05", "reporter-0")}
    assert intake.export(tmp_path / "out").rows == 160
    assert len(intake.labelled()) == 200  # what was said is kept, and shown


def test_the_queue_asks_for_disputed_then_disliked_then_unsure_answers_each_text_once(intake: Intake) -> None:
    intake.record([answer("sure", score=0.99), answer("weak", score=0.51), answer("twin", score=0.52, text="text weak")])
    intake.record([answer("bad", score=0.9), answer("split", score=0.95), answer("known", score=0.5)])
    intake.feedback([says("bad", rating=-1), says("split", "pos"), says("split", "neg", "other"), says("known", "pos")], NOW)
    assert [(row.id, row.reason) for row in intake.unsure(4)] == [
        ("split", "disputed"), ("bad", "disliked"), ("weak", "uncertain"), ("sure", "uncertain"),
    ]  # fmt: skip
    intake.record([answer("other", "neg", score=0.97, text="text sure")])
    assert [(row.id, row.reason) for row in intake.unsure(3)][2] == ("other", "disagreeing")
    assert len(intake.unsure(1)) == 1 and intake.unsure(9, since_day="2026-01-06") == []


@pytest.mark.parametrize("form", ["csv", "jsonl"])
def test_the_queue_goes_out_to_a_file_and_back(intake: Intake, tmp_path: Path, form: str) -> None:
    intake.record([answer("a", text='says "hm",\nand more'), answer("b")])
    path = tmp_path / f"queue.{form}"
    rows = [row.model_copy(update={"label": "neg" if row.id == "a" else ""}) for row in intake.unsure(9)]
    path.write_text(annotation.written(rows, form), encoding="utf-8")
    assert annotation.read_back(path, "annotator:ann") == [says("a", "neg", "annotator:ann")]


@pytest.mark.parametrize(
    ("name", "content"),
    [("q.csv", "a,b\n1,2\n"), ("q.jsonl", "nonsense\n"), ("q.jsonl", "[1]\n"), ("q.csv", "id,label\n../x y,pos\n")],
)
def test_a_file_that_is_no_queue_is_refused(tmp_path: Path, name: str, content: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(BadData):
        annotation.read_back(tmp_path / name, "annotator:ann")


def test_what_nobody_spoke_of_is_forgotten_and_what_has_feedback_stays(intake: Intake) -> None:
    then = NOW - 40 * DAY
    intake.record(
        [answer(key, day=day, at=then) for key, day in (("old", "2025-12-24"), ("told", "2025-12-24"), ("new", "2026-01-09"))]
    )
    intake.feedback([says("told", "pos")], NOW)
    assert intake.prune("2026-01-05", dry=True) == 1 and len(intake.predictions()) == 3
    assert intake.prune("2026-01-05") == 1
    assert [row.id for row in intake.predictions()] == ["told", "new"]


def test_an_old_event_that_was_asked_about_today_can_still_be_spoken_of(intake: Intake) -> None:
    intake.record([answer("archive", day="2024-05-01")])
    assert intake.prune("2025-12-24") == 0
    assert intake.feedback([says("archive", "neg")], NOW + 60).accepted == 1


def test_an_answer_somebody_spoke_of_stays_or_the_act_would_be_read_as_said_of_another(intake: Intake) -> None:
    intake.record([answer("a", "pos"), answer("b", "pos")])
    intake.feedback([says("a", behaviour="accepted"), says("b", rating=1)], NOW)
    intake.record([answer("a", "neg"), answer("b", "neg")])
    assert [(row.id, row.label) for row in intake.implied()] == [("a", "pos")]
    assert [row.label for row in intake.predictions()] == ["pos", "pos"]


def test_requests_are_counted_by_day_and_version_and_survive_a_close(intake: Intake) -> None:
    intake.record([answer("a")])
    for _ in range(3):
        intake.observe("2026-01-05", 3, 10, 0.2, ok=True)
    intake.observe("2026-01-05", 3, 10, 500.0, ok=False)
    intake.close()
    rows = Intake(intake.path).served()
    assert [(row.ok, row.requests, row.texts) for row in rows] == [(False, 1, 10), (True, 3, 30)]
    assert rows[1].above < 0.2 <= rows[1].bound


def test_a_database_of_the_version_before_is_taken_over(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    first = Intake(path)
    first.record([answer("a")])
    first.close()
    with sqlite3.connect(path) as old:
        old.executescript("DROP TABLE served; PRAGMA user_version = 1;")
    old.close()
    again = Intake(path)
    again.observe("2026-01-05", 3, 1, 0.1, ok=True)
    again.record([answer("b")])
    assert len(again.predictions()) == 2 and len(again.served()) == 1
    again.close()
