"""A checkpoint that is removed while it is sent is kept all the same, and whatever happens, the next one is looked for."""

from __future__ import annotations

import shutil
import time
from pathlib import Path

import pytest

from autoglm_ops.cluster import exchange, keeping
from autoglm_ops.contracts.cluster import Store, Work
from autoglm_ops.store import open_store

PATTERN = "scratch/step-*"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), tmp_path)


def written(root: Path, step: int) -> Path:
    folder = root / "scratch" / f"step-{step}"
    folder.mkdir(parents=True)
    (folder / "weights").write_text(str(step))
    return folder


def test_one_that_makes_room_while_it_is_sent_is_kept(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a run that saves every quarter of a second: the thread died of it, and a deleted pod then cost everything."""
    root, put = tmp_path / "work", store.put

    def late(folder: Path) -> str:
        shutil.rmtree(root / "scratch" / folder.name, ignore_errors=True)
        return put(folder)

    monkeypatch.setattr(store, "put", late)
    key = exchange.describe(store, Work(name="x", command=("true",)))
    keeper = keeping.Keeper(store, key, root, (PATTERN,))
    for step in (1, 2):
        folder = written(root, step)
        keeper._look()
        kept = exchange.last_kept(store, key)
        assert kept is not None and kept.path == f"scratch/step-{step}" and not folder.exists()
        keeping.lay_down(store, kept, tmp_path / f"next-{step}")
        assert (tmp_path / f"next-{step}" / kept.path / "weights").read_text() == str(step)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".kept")] == []


def test_one_that_is_gone_before_it_is_held_is_passed_over(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "work"
    key = exchange.describe(store, Work(name="x", command=("true",)))
    keeper = keeping.Keeper(store, key, root, (PATTERN,))
    gone = root / "scratch" / "step-9"
    monkeypatch.setattr(keeper, "_found", lambda: [(gone, 1)])
    keeper._look()
    assert exchange.last_kept(store, key) is None and caplog.records == []


def test_one_that_was_set_aside_and_written_again_under_its_name_is_kept(store: Store, tmp_path: Path) -> None:
    """After a divergence: the last that was kept would have stayed the one that nothing should continue from."""
    root = tmp_path / "work"
    key = exchange.describe(store, Work(name="x", command=("true",)))
    keeper = keeping.Keeper(store, key, root, (PATTERN,))
    folder = written(root, 1)
    keeper._look()
    for aside, text in ((True, "again"), (False, "and again")):  # a folder that is gone may leave its number to the next
        if aside:
            folder.rename(folder.with_name("diverged-1"))
        else:
            shutil.rmtree(folder)
            keeper._look()
        (written(root, 1) / "weights").write_text(text)
        keeper._look()
        kept = exchange.last_kept(store, key)
        assert kept is not None and kept.path == "scratch/step-1"
        keeping.lay_down(store, kept, tmp_path / text)
        assert (tmp_path / text / kept.path / "weights").read_text() == text
    before = kept
    (folder / "weights").unlink()  # on its way out, it is no new one
    keeper._look()
    assert exchange.last_kept(store, key) == before


def test_keeping_takes_a_share_of_the_time_and_the_last_is_kept_all_the_same(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every checkpoint of a run that writes one in five seconds had gone to the store, and stayed."""
    assert [keeping.rest_after(took) for took in (0.01, 1.0, 3600.0)] == [1.0, 20.0, 300.0]
    monkeypatch.setattr(keeping, "POLL_SECONDS", 0.01)
    root, put, sent = tmp_path / "work", store.put, list[str]()

    def slow(folder: Path) -> str:
        if folder.name.startswith("step-"):
            sent.append(folder.name)
            time.sleep(0.2)
        return put(folder)

    monkeypatch.setattr(store, "put", slow)
    key = exchange.describe(store, Work(name="x", command=("true",)))
    with keeping.Keeper(store, key, root, (PATTERN,)):
        for step in range(1, 8):
            written(root, step)
            time.sleep(0.2)
    assert len(sent) == 2 and sent[-1] == "step-7"
