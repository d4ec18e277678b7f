"""Which events become documents, which do not and why; and which tables of handlers are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from follow_parts import COLUMNS

from autoglm_ops.data.follow.convert import Converted, Writing, convert, quarantined
from autoglm_ops.data.follow.events import MAX_EVENT, Entry
from autoglm_ops.data.follow.handlers import HANDLERS, Chat, Document
from autoglm_ops.data.follow.routes import LiveRoutes, Routes, table
from autoglm_ops.data.rows import BadLineError
from autoglm_ops.errors import SettingsError
from autoglm_ops.settings.layers import parse_yaml

WRITING = Writing("log", COLUMNS)


def entry(body: Any, kind: Any = "t", place: str = "a.jsonl:0") -> Entry:
    return Entry(place, "", json.dumps({"type": kind, "body": body}).encode())


def made(body: Any, handler: Any = None, **more: Any) -> Converted:
    return convert(entry(body, **more), Routes({"t": handler or Document()}, ""), WRITING)


def documents(found: Converted) -> list[dict[str, Any]]:
    assert found.reason is None
    return [json.loads(line) for line in found.documents]


def test_a_document_keeps_what_it_brings_and_gets_what_it_lacks() -> None:
    body = {"text": "好", "label": 1, "id": 7, "source": " shop ", "timestamp": "2026-03-01T23:00:00-02:00", "more": "x"}
    assert documents(made(body)) == [{"text": "好", "label": "1", "id": "7", "source": "shop", "timestamp": "2026-03-02"}]
    [bare] = documents(made({"text": "", "label": None, "id": ""}))
    assert len(bare.pop("id")) == 16 and bare == {"text": "", "source": "t"}


def test_an_id_hangs_on_the_events_place_alone() -> None:
    ids = [documents(made({"text": "same"}, place=place))[0]["id"] for place in ("a:0", "a:0", "a:9", "b:0")]
    assert ids[0] == ids[1] and len({*ids}) == 3
    both = documents(made({"documents": [{"text": "x"}, {"text": "x"}]}, HANDLERS.get("documents")()))
    assert both[0]["id"] != both[1]["id"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({}, "missing-column"),
        ({"text": None}, "null-text"),
        ({"text": 5}, "wrong-type"),
        ({"text": "a\0b"}, "nul-character"),
        ({"text": "\ud800"}, "lone-surrogate"),
        ({"text": "x", "label": []}, "wrong-type"),
        ({"text": "x", "id": "i" * 257}, "name-too-long"),
        ([], "no-body"),
        (None, "no-body"),
    ],
)
def test_what_could_not_be_read_later_is_refused_now(body: Any, reason: str) -> None:
    assert made(body) == Converted((), reason, "t" if reason != "no-body" else None)


@pytest.mark.parametrize("kind", [None, 5, "", "a\nb", "x" * 257, "\ud800"])
def test_a_type_is_one_short_line(kind: Any) -> None:
    assert made({"text": "x"}, kind=kind).reason == "no-type"


def test_one_bad_document_refuses_its_event_whole() -> None:
    many = HANDLERS.get("documents")(field="items")
    assert made({"items": [{"text": "good"}, {"text": None}]}, many).reason == "null-text"
    assert made({"items": "x"}, many).reason == made({"items": [1]}, many).reason == "wrong-type"
    assert documents(made({"items": []}, many)) == []


def test_a_chat_is_a_text_of_its_turns() -> None:
    messages = [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "hi {role}"},
        {"role": "tool", "content": "{}"},
    ]
    assert documents(made({"messages": messages, "id": "c1", "label": "ok"}, Chat())) == [
        {"text": "system: be kind\nuser: hi {role}", "id": "c1", "label": "ok", "source": "t"}
    ]
    assert (
        documents(made({"messages": messages}, Chat(roles=("user",), turn="<{role}>{content}")))[0]["text"] == "<user>hi {role}"
    )
    for wrong, reason in (([], "no-messages"), (messages[2:], "no-messages"), ([{"role": "user"}], "wrong-type")):
        assert made({"messages": wrong}, Chat()).reason == reason


def test_what_is_ignored_is_kept_and_becomes_nothing() -> None:
    assert made({"a": 1}, HANDLERS.get("ignore")()) == Converted((), None, "t")


def raising(error: Exception) -> Any:
    def handler(body: Any) -> Any:
        raise error

    return handler


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (KeyError("x"), "handler-failed-KeyError"),
        (ZeroDivisionError(), "handler-failed-ZeroDivisionError"),
        (BadLineError("Too odd: Müller's!"), "too-odd-m-ller-s"),
        (BadLineError(""), "refused"),
        (BadLineError("x" * 500), "x" * 64),
    ],
)
def test_a_handlers_surprise_is_its_events_quarantine(error: Exception, reason: str) -> None:
    assert made({"text": "x"}, raising(error)).reason == reason


def test_what_no_data_can_cause_ends_the_follower() -> None:
    with pytest.raises(OSError, match="disk"):
        made({"text": "x"}, raising(OSError("disk")))


def test_the_quarantine_holds_the_event_whole_unless_it_was_too_long() -> None:
    bad = Entry("a.jsonl:5", "", b'{"type":"t\xff"' + b"x" * 5000)
    told = json.loads(quarantined(bad, convert(bad, Routes({}, ""), WRITING), "log"))
    assert told == {
        "reason": "bad-utf8",
        "log": "log",
        "place": "a.jsonl:5",
        "type": None,
        "event": '{"type":"t\\xff"' + "x" * 5000,
    }
    long = Entry("a.jsonl:9", "", b"x" * (MAX_EVENT + 1), fits=False)
    told = json.loads(quarantined(long, convert(long, Routes({}, ""), WRITING), "log"))
    assert told["reason"] == "too-long" and len(told["event"]) == 1000


def test_a_table_as_people_write_it() -> None:
    """`on` is true in YAML 1.1, and Lists become tuples."""
    found = table(
        parse_yaml(
            "- {on: a, handler: document, options: {text: body}}\n- {on: b, handler: chat, options: {roles: [user]}}", "h"
        ),
        "h",
    )
    assert found == {"a": Document(text="body"), "b": Chat(roles=("user",))}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "must hold a list of at least one handler"),
        ("[]", "must hold a list of at least one handler"),
        ("a: b", "must hold a list of at least one handler"),
        ("[x]", "entry 1: 'x' must be"),
        ("[{on: a}]", "entry 1: .* must be"),
        ("[{on: 5, handler: chat}]", "entry 1: .* must be"),
        ("[{on: a, handler: chat}, {on: a, handler: chat}]", "entry 2: 'a' has a handler already"),
        ("[{on: a, handler: chatt}]", "unknown event handler 'chatt'; did you mean 'chat'"),
        ("[{on: a, handler: chat, option: {}}]", "unknown key 'option'; did you mean 'options'"),
        ("[{on: a, handler: chat, options: []}]", "options must be a mapping"),
        ("[{on: a, handler: chat, options: {role: x}}]", "options.role: "),
        ("[{on: a, handler: chat, options: {roles: 5}}]", "options.roles: "),
        ("[{on: a, handler: chat, options: {5: x}}]", "entry 1: "),
        ("[{on: a, handler: &x chat}, {on: b, handler: *x}]", "aliases are not allowed"),
        ("{", "h.yaml:1:2 is not valid YAML"),
    ],
)
def test_a_table_that_cannot_be_used_is_refused_where_it_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "h.yaml").write_text(text)
    with pytest.raises(SettingsError, match=says):
        LiveRoutes(tmp_path / "h.yaml", lambda text: parse_yaml(text, "h.yaml"))


def test_a_file_that_is_not_there_or_no_text_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="cannot be read: No such file"):
        LiveRoutes(tmp_path / "h.yaml", yaml.safe_load)
    (tmp_path / "h.yaml").write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="not UTF-8"):
        LiveRoutes(tmp_path / "h.yaml", yaml.safe_load)
    (tmp_path / "h.yaml").write_bytes(b"#" * (1 << 20) + b"\n[]")
    with pytest.raises(SettingsError, match="more than 1048576 bytes"):
        LiveRoutes(tmp_path / "h.yaml", yaml.safe_load)


def test_a_change_is_taken_when_it_has_stood_for_a_while(tmp_path: Path) -> None:
    path = tmp_path / "h.yaml"
    path.write_text("[{on: a, handler: chat}, {on: b, handler: chat}]")
    live = LiveRoutes(path, lambda text: parse_yaml(text, "h.yaml"), settle=0.0)
    first = live.now()
    path.write_text("[{on: a, handler: chat}]")
    assert live.now() is first  # it may be being written
    assert {*live.now().handlers} == {"a"}
    path.write_text("[")
    live.now()
    for _ in range(3):
        assert {*live.now().handlers} == {"a"}
    assert (live.reloaded, live.refused) == (1, 1)
