"""One contract for every artefact store. S3 runs against a real server (seaweedfs), over a good wire and over a bad one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fault_proxy import Weather, bad_wire, storm

from autoglm_ops.contracts.cluster import Shelf, Store
from autoglm_ops.contracts.record import digest_path
from autoglm_ops.errors import Refused, UsageError
from autoglm_ops.store import open_store

Open = Callable[[], Store]


@pytest.fixture(params=["folder", "s3", "s3-bad-wire"])
def opened(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    if request.param == "folder":
        yield lambda: open_store(None, tmp_path / "home")
        return
    uri = f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    if request.param == "s3":
        yield lambda: open_store(uri, tmp_path / "home")
        return
    with bad_wire(request.getfixturevalue("s3_server")["AWS_ENDPOINT_URL"], Weather(storm(seed=5))) as endpoint:
        monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
        yield lambda: open_store(uri, tmp_path / "home")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "model"
    (made / "tokenizer").mkdir(parents=True)
    (made / "weights.bin").write_bytes(bytes(range(256)) * 1000)
    (made / "tokenizer" / "词表.json").write_text('{"好": 1}', encoding="utf-8")
    (made / "empty").write_bytes(b"")
    return made


def test_what_was_put_is_got(opened: Open, folder: Path, tmp_path: Path) -> None:
    digest = opened().put(folder)
    assert digest == digest_path(folder)
    assert opened().has(digest)
    got = opened().get(digest, tmp_path / "got")
    assert got == tmp_path / "got" and digest_path(got) == digest
    assert (got / "tokenizer" / "词表.json").read_text(encoding="utf-8") == '{"好": 1}'


def test_putting_twice_is_putting_once(opened: Open, folder: Path, tmp_path: Path) -> None:
    digest = opened().put(folder)
    assert opened().put(folder) == digest
    (folder / "weights.bin").write_bytes(b"other")
    other = opened().put(folder)
    assert other != digest and opened().has(other)
    assert (opened().get(digest, tmp_path / "a") / "weights.bin").stat().st_size == 256_000


def test_getting_twice_changes_nothing_and_a_strange_target_is_kept(opened: Open, folder: Path, tmp_path: Path) -> None:
    digest = opened().put(folder)
    opened().get(digest, tmp_path / "got")
    assert opened().get(digest, tmp_path / "got") == tmp_path / "got"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="holds something else"):
        opened().get(digest, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "years of work"


def test_what_was_never_put_is_refused(opened: Open, tmp_path: Path) -> None:
    assert not opened().has("0" * 64)
    with pytest.raises(Refused, match="no artefact"):
        opened().get("0" * 64, tmp_path / "got")
    assert not (tmp_path / "got").exists()


@pytest.mark.parametrize("digest", ["", "../../etc", "/etc/passwd", "A" * 64, "0" * 63])
def test_only_digests_are_addresses(opened: Open, digest: str, tmp_path: Path) -> None:
    store = opened()
    for call in (lambda: store.has(digest), lambda: store.get(digest, tmp_path / "got")):
        with pytest.raises(UsageError, match="not a digest"):
            call()


def test_links_are_refused(opened: Open, folder: Path) -> None:
    (folder / "link").symlink_to("/etc/passwd")
    with pytest.raises(Refused, match="link"):
        opened().put(folder)


def test_the_first_note_stays(opened: Open) -> None:
    name, first, second = f"datasets/{'a' * 64}", "1" * 64, "2" * 64
    assert opened().noted(name) is None
    assert opened().note(name, first) == first
    assert opened().note(name, second) == opened().note(name, first) == opened().noted(name) == first
    assert opened().noted(f"models/{'a' * 64}") is None


@pytest.mark.parametrize("name", ["", "a" * 64, f"../{'a' * 64}", f"x/../{'a' * 64}", "datasets/abc", f"/{'a' * 64}"])
def test_a_note_has_a_name_that_leads_nowhere_else(opened: Open, name: str) -> None:
    store = opened()
    for call in (lambda: store.noted(name), lambda: store.note(name, "1" * 64)):
        with pytest.raises(UsageError):
            call()
    with pytest.raises(UsageError, match="not a digest"):
        store.note(f"datasets/{'a' * 64}", "../../etc")


def test_what_is_dropped_is_gone_and_what_shares_its_files_stays(opened: Open, folder: Path, tmp_path: Path) -> None:
    first = opened().put(folder)
    (folder / "more").write_text("more")
    second = opened().put(folder)
    name = f"done/{first}"
    opened().note(name, second)
    store = opened()
    assert isinstance(store, Shelf)
    assert {entry.digest: set(entry.files) for entry in store.entries()} == {
        first: {"weights.bin", "tokenizer/词表.json", "empty"},
        second: {"weights.bin", "tokenizer/词表.json", "empty", "more"},
    }
    assert all(abs(entry.at - time.time()) < 600 for entry in store.entries())
    assert list(store.notes()) == [(name, second)]
    assert store.drop([first, second], time.time() - 600) == 0 and store.has(first), "both are young"
    store.drop([first], time.time() + 600)
    assert not store.has(first)
    assert digest_path(store.get(second, tmp_path / "second")) == second
    store.forget(name)
    store.forget(name)
    assert store.noted(name) is None
    assert store.drop([second, first], time.time() + 600) > 0 and list(store.entries()) == []
    assert store.put(folder) == second and digest_path(store.get(second, tmp_path / "again")) == second


def test_what_is_put_again_is_young_again(opened: Open, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = opened().put(folder)
    time.sleep(2.1)  # S3 keeps dates in seconds
    before = time.time() - 1
    for module in ("local", "s3"):
        monkeypatch.setattr(f"autoglm_ops.store.{module}.FRESH_SECONDS", 0.5)
    assert opened().put(folder) == digest
    store = opened()
    assert isinstance(store, Shelf) and store.drop([digest], before) == 0
    assert digest_path(store.get(digest, tmp_path / "got")) == digest
