"""What was answered is kept, what comes back is counted once, and the file survives whoever writes it."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from autoglm_ops.contracts.record import digest_path
from autoglm_ops.contracts.release import ModelRef
from autoglm_ops.contracts.serving import FeedbackItem, Prediction
from autoglm_ops.errors import Tampered, TryAgain, UsageError
from autoglm_ops.feedback import database
from autoglm_ops.feedback.intake import Intake, redact, settle

NOW = 1_770_000_000.0  # 2026-02-02
DAY = 86_400.0


def answer(key: str, text: str = "很好", label: str = "pos", day: str = "2026-01-05", version: int = 3) -> Prediction:
    model = ModelRef(name="autoglm", version=version, digest="d" * 64)
    return Prediction(id=key, model=model, text=text, label=label, score=0.75, at=NOW, event_time=day)


def says(key: str, label: str | None = "pos", source: str = "shop", rating: int | None = None) -> FeedbackItem:
    return FeedbackItem(id=key, label=label, source=source, rating=rating)


@pytest.fixture
def intake(tmp_path: Path) -> Iterator[Intake]:
    made = Intake(tmp_path / "serving" / "requests.db", max_per_source=5)
    yield made
    made.close()


def test_reading_before_anything_was_written_makes_no_file(intake: Intake, tmp_path: Path) -> None:
    assert intake.labelled() == [] and intake.predictions() == [] and intake.days() == [] and intake.sources() == []
    assert intake.export(tmp_path / "out").digest is None
    assert not intake.path.exists() and not (tmp_path / "out").exists()


def test_a_label_meets_its_prediction(intake: Intake) -> None:
    intake.record([answer("a"), answer("b", label="neg", day="2026-01-06T10:00:00Z")])
    counts = intake.feedback([says("a"), says("b"), says("nobody")], NOW)
    assert (counts.accepted, counts.unknown, counts.agreed, counts.disagreed) == (2, 1, 1, 1)
    rows = intake.labelled()
    assert [(row.id, row.label, row.predicted, row.day, row.version) for row in rows] == [
        ("a", "pos", "pos", "2026-01-05", 3),
        ("b", "pos", "neg", "2026-01-06", 3),
    ]
    assert [row.id for row in intake.labelled("2026-01-06", "2026-01-06")] == ["b"]
    assert [prediction.id for prediction in intake.predictions("2026-01-05", "2026-01-05")] == ["a"]
    assert intake.predictions()[0] == answer("a")


def test_the_same_again_is_a_repeat_and_another_label_replaces(intake: Intake) -> None:
    intake.record([answer("a")])
    outcomes = [intake.feedback([says("a", label)], NOW) for label in ("pos", "pos", "neg")]
    assert [(c.accepted, c.repeated, c.replaced) for c in outcomes] == [(1, 0, 0), (0, 1, 0), (0, 0, 1)]
    assert [row.label for row in intake.labelled()] == ["neg"]
    assert intake.sources()[0].labels == 1


def test_ratings_are_counted_and_are_no_labels(intake: Intake) -> None:
    intake.record([answer("a")])
    assert intake.feedback([says("a", label=None, rating=-1)], NOW).accepted == 1
    assert intake.labelled() == []
    assert (intake.sources()[0].ratings, intake.sources()[0].labels) == (1, 0)


def test_a_source_is_capped_by_the_day_and_what_it_said_may_still_be_repeated(intake: Intake) -> None:
    intake.record([answer(str(n)) for n in range(8)])
    first = intake.feedback([says(str(n)) for n in range(8)], NOW)
    assert first.accepted == 5 and first.refused == {"over-cap": 3}
    again = intake.feedback([says("0"), says("1", "neg"), says("7")], NOW)
    assert (again.repeated, again.replaced, again.refused) == (1, 1, {"over-cap": 1})
    assert intake.feedback([says("7", source="other")], NOW).accepted == 1
    assert intake.feedback([says("7")], NOW + DAY).accepted == 1


def test_labels_the_model_does_not_know_are_refused(intake: Intake) -> None:
    intake.record([answer("a")])
    counts = intake.feedback([says("a", "bogus"), says("a", "neg")], NOW, frozenset({"pos", "neg"}))
    assert counts.refused == {"unknown-label": 1} and counts.accepted == 1


@pytest.mark.parametrize(
    "bad", [{"id": "a b"}, {"id": ""}, {"source": "x" * 99}, {"label": ""}, {"rating": 1}, {"label": None}]
)
def test_garbage_is_no_feedback_item(bad: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        FeedbackItem.model_validate({"id": "a", "label": "pos", **bad})


def test_an_id_names_one_text_and_others_in_the_same_transaction_are_untouched(intake: Intake) -> None:
    intake.record([answer("a", "first")])
    futures = [intake.remember([answer("x", "kept")]), intake.remember([answer("a", "second"), answer("y")])]
    futures[0].result()
    with pytest.raises(UsageError, match="already names another text"):
        futures[1].result()
    assert [prediction.id for prediction in intake.predictions()] == ["a", "x"]


def test_an_answer_may_be_renewed_until_somebody_speaks_of_it(intake: Intake) -> None:
    intake.record([answer("a", label="neg", version=3)])
    intake.record([answer("a", label="pos", version=4)])
    assert intake.predictions()[0].model.version == 4
    intake.feedback([says("a", "pos")], NOW)
    intake.record([answer("a", label="neg", version=5)])
    assert intake.labelled()[0].version == 4, "a model trained on the label must not be measured on it"


def test_what_most_sources_say_is_the_label_and_a_tie_is_none(intake: Intake) -> None:
    intake.record([answer("a"), answer("b")])
    intake.feedback([says("a", "neg", "s1"), says("a", "pos", "s3"), says("a", "pos", "s2")], NOW)
    intake.feedback([says("b", "neg", "s1"), says("b", "pos", "s2")], NOW)
    assert [(row.id, row.label, row.source, row.sources) for row in intake.labelled()] == [("a", "pos", "s2", ("s2", "s3"))]
    day = intake.days()[0]
    assert (day.predictions, day.labelled, day.correct, day.disputed) == (2, 1, 1, 1)


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["x", "y", "z"])), max_size=9, unique_by=lambda vote: vote[0])
)
def test_settling_does_not_depend_on_order(votes: list[tuple[str, str]]) -> None:
    assert settle(votes) == settle(votes[::-1])
    if (settled := settle(votes)) is not None:
        label, sources = settled
        assert sources == tuple(sorted(source for source, given_label in votes if given_label == label))
        given_to = [label for _, label in votes]
        assert all(given_to.count(label) > given_to.count(other) for other in set(given_to) - {label})


def test_an_export_is_the_same_bytes_whoever_wrote_first(tmp_path: Path) -> None:
    digests = []
    for name, order in (("one", (0, 1, 2)), ("two", (2, 0, 1))):
        intake = Intake(tmp_path / name / "requests.db")
        rows = [answer("b", '行\u2028 "q"'), answer("a", "好"), answer("c", "坏", day="2026-01-03")]
        for place in order:
            intake.record([rows[place]])
            intake.feedback([says(rows[place].id)], NOW + place)
        snapshot = intake.export(tmp_path / name / "out")
        intake.close()
        digests.append(snapshot.digest)
        assert (snapshot.rows, snapshot.until) == (3, "2026-01-05")
        assert snapshot.digest == digest_path(tmp_path / name / "out")
    assert digests[0] == digests[1]
    lines = (tmp_path / "one" / "out" / "labels.jsonl").read_bytes().rstrip(b"\n").split(b"\n")
    assert [json.loads(line)["id"] for line in lines] == ["c", "a", "b"]
    assert json.loads(lines[0]) == {
        "id": "c",
        "text": "坏",
        "label": "pos",
        "timestamp": "2026-01-03",
        "source": "feedback:shop",
    }


def test_an_export_stops_at_its_day(intake: Intake, tmp_path: Path) -> None:
    intake.record([answer("a", day="2026-01-03"), answer("b", day="2026-01-05")])
    intake.feedback([says("a"), says("b")], NOW)
    assert intake.export(tmp_path / "out", until_day="2026-01-04").until == "2026-01-03"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("写信到 a.b+c@mail.example.cn 谢谢", "写信到 [email] 谢谢"),
        ("打13812345678给我", "打[phone]给我"),
        ("call +86 138-1234-5678 now", "call [phone] now"),
        ("订单 2026010112345678901 到了", "订单 2026010112345678901 到了"),
        ("价格 13800 元 @ 京东", "价格 13800 元 @ 京东"),
    ],
)
def test_mail_addresses_and_phone_numbers_are_not_kept(text: str, kept: str, intake: Intake) -> None:
    assert redact(text) == kept
    intake.record([answer("a", text)])
    intake.record([answer("a", text)])  # the same text again is no conflict, though what is kept differs from it
    assert intake.predictions()[0].text == kept
    assert redact("a" * 20_000 + "@") == "a" * 20_000 + "@"


def test_many_threads_write_and_none_is_lost(intake: Intake) -> None:
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda n: intake.record([answer(f"t{n}")]), range(300)))
    assert len(intake.predictions()) == 300


def test_many_open_the_new_file_at_once(tmp_path: Path) -> None:
    """Each with a connection of its own, as processes have; a server starts while a stage reads."""
    for turn in range(5):
        path = tmp_path / str(turn) / "requests.db"
        intakes = [Intake(path) for _ in range(6)]
        futures = [intake.remember([answer(f"{n}-{place}")]) for n in range(20) for place, intake in enumerate(intakes)]
        while not path.exists():
            pass
        assert len(Intake(path).predictions()) <= 120
        for future in futures:
            future.result(30)
        assert len(Intake(path).predictions()) == 120
        for intake in intakes:
            intake.close()


def test_what_was_confirmed_survives_a_kill(tmp_path: Path) -> None:
    """Threat F13's cousin: the process prints an id only after its record returned, and is killed at any moment."""
    script = textwrap.dedent("""
        import sys
        from pathlib import Path
        from autoglm_ops.contracts.release import ModelRef
        from autoglm_ops.contracts.serving import Prediction
        from autoglm_ops.feedback.intake import Intake
        intake, model = Intake(Path(sys.argv[1])), ModelRef(name="m", version=1, digest="d")
        n = 0
        while True:
            intake.record([Prediction(id=f"p{n}", model=model, text="t", label="l", score=1, at=0, event_time="2026-01-01")])
            print(n, flush=True)
            n += 1
    """)
    path = tmp_path / "requests.db"
    child = subprocess.Popen([sys.executable, "-c", script, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(40)]
    os.kill(child.pid, signal.SIGKILL)
    said += child.stdout.readlines()
    child.wait()
    complete = [line for line in said if line.endswith("\n")]
    assert {f"p{line.strip()}" for line in complete} <= {prediction.id for prediction in Intake(path).predictions()}


def test_a_locked_file_is_try_again_and_heals(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.05)
    intake.record([answer("a")])
    intake.close()
    intake = Intake(intake.path)
    blocker = sqlite3.connect(intake.path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with pytest.raises(TryAgain, match="locked"):
        intake.record([answer("b")])
    blocker.execute("ROLLBACK")
    blocker.close()
    intake.record([answer("b")])
    assert len(intake.predictions()) == 2
    intake.close()


def test_a_full_disk_is_try_again_and_keeps_what_was_there(intake: Intake) -> None:
    intake.record([answer("a")])
    writer = intake._writer._connection
    assert writer is not None
    pages = writer.execute("PRAGMA page_count").fetchone()[0]
    writer.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(TryAgain, match="full"):
        intake.record([answer("b", "x" * 100_000)])
    assert [prediction.id for prediction in intake.predictions()] == ["a"]
    intake.record([answer("c")])  # on a fresh connection


def test_a_damaged_or_newer_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "requests.db"
    path.write_bytes(b"not a database, and long enough to be read as one" * 40)
    with pytest.raises(Tampered, match=r"requests\.db is damaged"):
        Intake(path).predictions()
    path.unlink()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 9")
    newer.close()
    with pytest.raises(UsageError, match="format 9"):
        Intake(path).labelled()
