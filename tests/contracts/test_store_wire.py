"""The store over a bad wire to a real server: what is read was checked, what passes is tried again, and no part of an upload stays."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from fault_proxy import Asked, Weather, bad_wire, first
from s3_server import BUCKET

from autoglm_ops.contracts.record import digest_path
from autoglm_ops.errors import Tampered, TryAgain
from autoglm_ops.store import s3 as module
from autoglm_ops.store.parts import Place, abort
from autoglm_ops.store.s3 import S3Store

Left = Callable[[], list[Any]]
MIB = 2**20
PART = 5 * MIB  # the least that S3 takes


@pytest.fixture(scope="module")
def behind(s3_server: Mapping[str, str]) -> Iterator[tuple[Weather, Any]]:
    """A client behind a wire. Making one takes longer than most tests."""
    weather = Weather(lambda _: "")
    with bad_wire(s3_server["AWS_ENDPOINT_URL"], weather) as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in {**s3_server, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        yield weather, module._client()


@pytest.fixture(scope="module")
def direct(s3_server: Mapping[str, str]) -> Any:
    """A client that sees the server as it is."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in s3_server.items():
            patch.setenv(name, value)
        return module._client()


@pytest.fixture
def wire(behind: tuple[Weather, Any]) -> tuple[Weather, Any]:
    """The weather, good until the test says otherwise, and a client."""
    weather, _ = behind
    weather.choose = lambda _: ""
    weather.seen.clear()
    weather.done.clear()
    return behind


@pytest.fixture
def left(direct: Any, tmp_path: Path) -> Left:
    """The uploads that are neither finished nor aborted."""
    return lambda: list(direct.list_multipart_uploads(Bucket=BUCKET, Prefix=tmp_path.name).get("Uploads", []))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights").write_bytes(os.urandom(2 * PART + MIB))
    return tmp_path / "model"


def is_part(asked: Asked) -> bool:
    return asked.method == "PUT" and "partNumber=" in asked.path


def is_finish(asked: Asked) -> bool:
    return asked.method == "POST" and "uploadId=" in asked.path


def is_start(asked: Asked) -> bool:
    return asked.method == "POST" and "uploadId=" not in asked.path


def is_reading(asked: Asked) -> bool:
    return asked.method == "GET" and "/files/" in asked.path


SENDING = [
    *[(fault, is_part) for fault in ("busy", "cut", "spoil", "drop", "lose")],
    *[(fault, is_finish) for fault in ("busy", "cut", "drop", "lose")],
    ("busy", is_start),
]


@pytest.mark.parametrize(("fault", "where"), SENDING, ids=lambda value: value if isinstance(value, str) else value.__name__)
def test_a_large_file_goes_up_whole_through_faults(
    wire: tuple[Weather, Any], left: Left, folder: Path, tmp_path: Path, fault: str, where: Callable[[Asked], bool]
) -> None:
    weather, client = wire
    weather.choose = first(2, fault, where)
    store = S3Store(client, BUCKET, tmp_path.name, budget=20, part=PART)
    digest = store.put(folder)
    # a part's answer has no body to cut; what was finished though its answer was lost is found made, and not asked for again
    assert weather.done[fault] == {("cut", is_part): 0, ("cut", is_finish): 1, ("lose", is_finish): 1}.get((fault, where), 2)
    assert left() == []
    assert digest_path(store.get(digest, tmp_path / "got")) == digest
    parts = [asked for asked in weather.seen if is_part(asked)]
    assert len({asked.path for asked in parts}) == 3, "one upload, of three parts"


@pytest.mark.parametrize("fault", ["busy", "cut", "flip", "lose"])
def test_a_large_file_comes_down_whole_through_faults(
    wire: tuple[Weather, Any], folder: Path, tmp_path: Path, fault: str
) -> None:
    weather, client = wire
    store = S3Store(client, BUCKET, tmp_path.name, budget=20, part=PART)
    digest = store.put(folder)
    weather.seen.clear()
    weather.choose = first(2, fault, is_reading)
    assert digest_path(store.get(digest, tmp_path / "got")) == digest
    assert weather.done[fault] == 2
    readings = sum(is_reading(asked) for asked in weather.seen)
    assert readings == (6 if fault == "flip" else 5), (
        "a lost part is read again by itself; wrong bytes mean all of it, once more"
    )


@pytest.mark.parametrize("fault", ["busy", "spoil", "drop"])
def test_a_wire_that_stays_bad_is_said_once_and_leaves_no_part(
    wire: tuple[Weather, Any], left: Left, folder: Path, tmp_path: Path, fault: str
) -> None:
    weather, client = wire
    weather.choose = lambda asked: fault if is_part(asked) and "partNumber=2" in asked.path else ""
    with pytest.raises(TryAgain, match=r"after 0\.5 s; try again") as caught:
        S3Store(client, BUCKET, tmp_path.name, budget=0.5, part=PART).put(folder)
    assert str(caught.value).startswith(f"s3://{BUCKET}/{tmp_path.name}/files/") and caught.value.exit_code == 75
    assert left() == []
    weather.choose = lambda _: ""
    assert S3Store(client, BUCKET, tmp_path.name, part=PART).put(folder) == digest_path(folder), "and then it is well again"


@pytest.mark.parametrize(
    ("fault", "said"), [("busy", "does not answer"), ("cut", "does not answer"), ("flip", "check the network")]
)
def test_reading_over_a_wire_that_stays_bad_ends_within_its_budget(
    wire: tuple[Weather, Any], folder: Path, tmp_path: Path, fault: str, said: str
) -> None:
    weather, client = wire
    store = S3Store(client, BUCKET, tmp_path.name, budget=0.5, part=PART)
    digest = store.put(folder)
    weather.choose = lambda asked: fault if is_reading(asked) else ""
    began = time.monotonic()
    with pytest.raises(TryAgain, match=said):
        store.get(digest, tmp_path / "got")
    assert not (tmp_path / "got").exists() and time.monotonic() - began < 20


def test_what_changes_while_it_is_stored_is_refused_and_leaves_no_part(
    wire: tuple[Weather, Any], left: Left, folder: Path, tmp_path: Path
) -> None:
    weather, client = wire

    def overwrite(asked: Asked) -> str:
        if is_part(asked):
            with (folder / "weights").open("r+b") as file:
                file.seek(2 * PART)
                file.write(b"something else")
        return ""

    weather.choose = overwrite
    with pytest.raises(Tampered, match="changed while it was stored"):
        S3Store(client, BUCKET, tmp_path.name, part=PART).put(folder)
    assert left() == []


def test_of_two_writers_one_makes_it_and_the_other_finds_it_made(
    wire: tuple[Weather, Any], left: Left, folder: Path, tmp_path: Path
) -> None:
    """The second puts the whole folder between the first's look and its finish: only the server's condition can tell."""
    weather, client = wire
    other, raced = S3Store(client, BUCKET, tmp_path.name, part=PART), []

    def race(asked: Asked) -> str:
        if is_finish(asked) and not raced:
            raced.append(asked)
            other.put(folder)
        return ""

    weather.choose = race
    digest = S3Store(client, BUCKET, tmp_path.name, part=PART).put(folder)
    assert raced and digest == digest_path(folder) and left() == []
    assert digest_path(other.get(digest, tmp_path / "got")) == digest


def test_an_upload_that_somebody_ended_is_said_and_can_be_done_again(
    wire: tuple[Weather, Any], direct: Any, left: Left, folder: Path, tmp_path: Path
) -> None:
    weather, client = wire

    def end(asked: Asked) -> str:
        if is_finish(asked):
            (found,) = left()
            abort(Place(direct, BUCKET, found["Key"], 5, PART), found["UploadId"])
        return ""

    weather.choose = end
    store = S3Store(client, BUCKET, tmp_path.name, part=PART)
    with pytest.raises(TryAgain, match="ended by somebody else"):
        store.put(folder)
    weather.choose = lambda _: ""
    assert store.put(folder) == digest_path(folder)


def test_clearing_the_store_takes_what_killed_writers_left(
    wire: tuple[Weather, Any], left: Left, folder: Path, tmp_path: Path
) -> None:
    _, client = wire
    store = S3Store(client, BUCKET, tmp_path.name, part=PART)
    digest = store.put(folder)
    key = f"{tmp_path.name}/files/{'0' * 64}"
    begun = client.create_multipart_upload(Bucket=BUCKET, Key=key)
    client.upload_part(Bucket=BUCKET, Key=key, UploadId=begun["UploadId"], PartNumber=1, Body=b"x")
    store.drop([], time.time() - 600)
    assert len(left()) == 1, "it may still be going on"
    store.drop([], time.time() + 600)
    assert left() == []
    assert not store.has(digest) or digest_path(store.get(digest, tmp_path / "got")) == digest


def test_a_large_object_that_is_used_again_is_young_again(
    wire: tuple[Weather, Any], folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    weather, client = wire
    store = S3Store(client, BUCKET, tmp_path.name, part=PART)
    store.put(folder)
    (folder / "more").write_text("another folder with the same file in it")
    time.sleep(2.1)  # S3 keeps dates in seconds
    before = time.time() - 1
    monkeypatch.setattr(module, "FRESH_SECONDS", 0.5)
    monkeypatch.setattr(module, "MAX_COPY", PART)
    weather.seen.clear()
    digest = store.put(folder)
    assert sum(is_part(asked) for asked in weather.seen) == 3, "copied in parts, which send nothing"
    assert max(asked.size for asked in weather.seen) < MIB
    assert store.drop([digest], before) == 0
    assert digest_path(store.get(digest, tmp_path / "got")) == digest
