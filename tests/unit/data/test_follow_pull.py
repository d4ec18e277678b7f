"""The follower from end to end on a folder: every event is somewhere once, however its batches were cut and whatever it held."""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from threading import Event, Thread

import pytest
from follow_parts import COLUMNS, TABLE, handlers, lines, pull, records, review, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

from autoglm_ops.data.follow import Bounds, Commits, LiveRoutes, Tally, follow, open_log
from autoglm_ops.data.readers import Limits, Rejected, plan, read, survey
from autoglm_ops.data.rows import Shape

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=3), max_leaves=5
)
BODY = st.dictionaries(
    st.sampled_from(["text", "label", "id", "source", "timestamp", "documents", "messages"]), JSON, max_size=4
)
KIND = st.sampled_from(["review", "many", "chat", "strange", ""])
GOOD = st.builds(lambda text: json.dumps({"type": "review", "body": {"text": text}}).encode(), st.text(max_size=20))
OPEN = st.builds(lambda kind, body: json.dumps({"type": kind, "body": body}).encode(), KIND, BODY)
LINE = GOOD | OPEN | st.binary(max_size=12).map(lambda raw: raw.replace(b"\n", b""))


@contextmanager
def unsynced() -> Iterator[Path]:
    """A fresh folder, and no waiting for the disk: these tests make a thousand commits."""
    with tempfile.TemporaryDirectory() as name, pytest.MonkeyPatch.context() as patched:
        patched.setattr(os, "fsync", lambda handle: None)
        yield Path(name)


@settings(max_examples=25, deadline=None)
@example(events=[b'{"type": "review", "body": {"text": "\\u0085\\u2028"}}'], cuts=[1], files=1)  # no ends of lines
@given(events=st.lists(LINE, max_size=30), cuts=st.lists(st.integers(1, 9), min_size=1, max_size=3), files=st.integers(1, 3))
def test_every_event_is_somewhere_once_however_it_was_batched(events: list[bytes], cuts: list[int], files: int) -> None:
    with unsynced() as root:
        routes, log = handlers(root / "h.yaml"), root / "log"
        for number in range(files):
            share = events[len(events) * number // files : len(events) * (number + 1) // files]
            write(log / f"{number}.jsonl", share)
        whole = pull(log, root / "whole", routes)
        tallies = [pull(log, root / "cut", routes, most) for most in cuts]
        assert sum(tally.seen for tally in tallies) == whole.seen == len(events)
        assert whole.seen == whole.kept + sum(whole.quarantined.values())
        for kind in ("documents.jsonl", "_quarantine.jsonl"):
            assert lines(root / "cut", kind) == lines(root / "whole", kind)
        assert len(lines(root / "whole")) == whole.documents
        refused = lines(root / "whole", "_quarantine.jsonl")
        assert len(refused) == sum(whole.quarantined.values()) and all(item["reason"] for item in refused)


@settings(max_examples=15, deadline=None)
@given(events=st.lists(LINE, min_size=1, max_size=20))
def test_what_was_kept_is_what_the_readers_of_a_build_read(events: list[bytes]) -> None:
    with unsynced() as root:
        write(root / "log" / "a.jsonl", [review(0), *events])
        pull(root / "log", root / "out", handlers(root / "h.yaml"), 5)
        place, limits = survey(str(root / "out"), Limits()), Limits()
        shape = Shape(COLUMNS, date(2026, 1, 1))
        items = [item for shard in plan(place.blobs, 1 << 20) for item in read(shard, str(root / "out"), shape, limits)]
        assert not [item for item in items if isinstance(item, Rejected)] and not place.ignored
        found = [row for frame in items if not isinstance(frame, Rejected) for row in frame.rows(named=True)]
        made = lines(root / "out")
        for column in ("text", "label", "id", "source"):
            assert [row[column] for row in found] == [document.get(column) for document in made]


def test_a_second_look_takes_nothing_twice(tmp_path: Path) -> None:
    routes, log, out = handlers(tmp_path / "h.yaml"), tmp_path / "log", tmp_path / "out"
    write(log / "a.jsonl", map(review, range(5)))
    assert pull(log, out, routes, 2) == Tally(5, 5, 5, {}, 3)
    assert pull(log, out, routes) == Tally()
    write(log / "a.jsonl", map(review, range(5, 7)))
    assert pull(log, out, routes).seen == 2
    assert [item["text"] for item in lines(out)] == [f"review {n}" for n in range(7)]
    made = records(out)
    assert [item.number for item in made] == [1, 2, 3, 4]
    assert [item.previous for item in made] == [None, *(item.fingerprint() for item in made[:-1])]


def test_documents_are_called_what_the_reader_calls_them(tmp_path: Path) -> None:
    write(tmp_path / "log" / "a.jsonl", [review(1, label="pos", timestamp="2026-03-01T10:00:00", more="x")])
    source, columns = open_log(str(tmp_path / "log")), {**COLUMNS, "text": "content", "timestamp": "day"}
    with Commits(tmp_path / "out", source.name) as commits:
        follow(source, commits, handlers(tmp_path / "h.yaml"), columns, Bounds(once=True), Event(), lambda _: None)
    [document] = lines(tmp_path / "out")
    assert document.pop("id")
    assert document == {"content": "review 1", "label": "pos", "day": "2026-03-01", "source": "review"}


def test_a_batch_of_refused_events_is_a_commit_without_documents(tmp_path: Path) -> None:
    write(tmp_path / "log" / "a.jsonl", [b"{", b'{"type":"strange","body":{}}', b'{"type":"review"}', b'{"body":{}}', b""])
    tally = pull(tmp_path / "log", tmp_path / "out", handlers(tmp_path / "h.yaml"))
    assert tally.quarantined == {"bad-json": 1, "no-handler": 1, "no-body": 1, "no-type": 1, "blank-line": 1}
    assert sorted(path.name for path in (tmp_path / "out" / f"{1:012d}").iterdir()) == ["_commit.json", "_quarantine.jsonl"]
    second = lines(tmp_path / "out", "_quarantine.jsonl")[1]
    assert second == {
        "event": '{"type":"strange","body":{}}',
        "log": "log",
        "place": "a.jsonl:2",
        "reason": "no-handler",
        "type": "strange",
    }


@contextmanager
def following(log: Path, out: Path, routes: LiveRoutes, bounds: Bounds) -> Iterator[list[Tally]]:
    """A follower at work; it is told to stop at the end, and has then committed what it took."""
    stop, heard, source = Event(), [Tally()], open_log(str(log))

    def work() -> None:
        with Commits(out, source.name) as commits:
            follow(source, commits, routes, COLUMNS, bounds, stop, heard.append)

    thread = Thread(target=work)
    thread.start()
    try:
        yield heard
    finally:
        stop.set()
        thread.join(30)
    assert not thread.is_alive()


def until(true: object, seconds: float = 20.0) -> None:
    assert callable(true)
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come"
        time.sleep(0.01)


def test_the_handlers_change_while_it_runs_and_a_bad_file_changes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    table, log, out = tmp_path / "h.yaml", tmp_path / "log", tmp_path / "out"
    routes = handlers(table, TABLE[:1])
    strange = b'{"type":"strange","body":{"text":"now known"}}'
    write(log / "a.jsonl", [review(0), strange])
    with caplog.at_level(logging.INFO), following(log, out, routes, Bounds(100, 0.05)) as heard:
        until(lambda: heard[-1].seen == 2)
        table.write_text(json.dumps([*TABLE, {"on": "strange", "handler": "documnt"}]))
        until(lambda: routes.refused == 1)
        write(log / "a.jsonl", [review(1), strange])
        until(lambda: heard[-1].seen == 4)
        table.write_text(json.dumps([*TABLE, {"on": "strange", "handler": "document"}]))
        until(lambda: routes.reloaded == 1)
        write(log / "a.jsonl", [review(2), strange])
        until(lambda: heard[-1].seen == 6)
        table.unlink()
        until(lambda: routes.refused == 2)
        write(log / "a.jsonl", [strange])
        until(lambda: heard[-1].seen == 7)
    assert (heard[-1].kept, heard[-1].quarantined) == (5, {"no-handler": 2})
    assert [item["text"] for item in lines(out)] == ["review 0", "review 1", "review 2", "now known", "now known"]
    assert [item.handlers for item in records(out)].count(records(out)[0].handlers) == 2  # the bad file's is in none
    warnings = [item.getMessage() for item in caplog.records if item.levelno == logging.WARNING]
    assert len(warnings) == 2 and "did you mean 'document'?" in warnings[0] and "cannot be read" in warnings[1]


def test_a_batch_that_is_not_full_is_committed_when_it_is_old_enough(tmp_path: Path) -> None:
    log = tmp_path / "log"
    write(log / "a.jsonl", [review(0)])
    with following(log, tmp_path / "out", handlers(tmp_path / "h.yaml"), Bounds(100, 0.4)) as heard:
        time.sleep(0.1)
        write(log / "a.jsonl", [review(1)])
        until(lambda: heard[-1].seen == 2)
        assert heard[-1].commits == 1  # both, in one


def test_who_is_told_to_stop_commits_what_it_took(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "out"
    write(log / "a.jsonl", map(review, range(3)))
    with following(log, out, handlers(tmp_path / "h.yaml"), Bounds(100, 3600)) as heard:
        time.sleep(0.5)
        assert heard[-1].commits == 0
    assert heard[-1].seen == 3 and len(lines(out)) == 3
