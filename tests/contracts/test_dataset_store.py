"""A dataset version goes to the store and comes to another machine, byte for byte or not at all. S3 is a real server."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from autoglm_ops.contracts.record import digest_path, digest_tree
from autoglm_ops.errors import Refused, Tampered, UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.stages import dataset, dataset_store
from autoglm_ops.store import open_store

HOUSE = Path(__file__).parents[2]
ROWS = [{"text": f"document number {n} of a dataset that is to be kept", "label": "ab"[n % 2]} for n in range(40)]


@pytest.fixture(params=["folder", "s3"])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    uri = str(tmp_path / "store") if request.param == "folder" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"
    flow = {"steps": ["normalise"], "dedup": {"enabled": False}, "suite": None}
    return Settings.model_validate({"flow": flow, "store": {"uri": uri}})


def build(settings: Settings, home: Path, rows: list[dict[str, Any]] = ROWS, name: str = "raw") -> Path:
    home.mkdir(exist_ok=True)
    raw = home / f"{name}.jsonl"
    raw.write_text("".join(json.dumps(row) + "\n" for row in rows))
    work = dataset.open_build(settings, str(raw), home, home)
    place = dataset.Place(home, HOUSE, lambda *_: {})
    return dataset.datasets(home) / dataset.build(settings, work, place, 1, lambda *_: None).digest


def test_what_one_machine_pushed_another_pulls_by_its_digest(settings: Settings, tmp_path: Path) -> None:
    folder = build(settings, tmp_path / "one")
    pushed = dataset_store.push(settings, folder, tmp_path / "one")
    assert pushed.digest == folder.name and dataset_store.push(settings, folder, tmp_path / "one") == pushed
    assert dataset_store.stored(settings, tmp_path / "two", [folder.name, "0" * 64]) == {folder.name}
    for _ in "12":
        assert dataset_store.pull(settings, folder.name, tmp_path / "two") == pushed
    got = dataset.datasets(tmp_path / "two") / folder.name
    assert digest_tree(got) == digest_tree(folder) and (got / "_built.json").exists()
    assert sorted(path.name for path in got.parent.iterdir()) == [".pulling", folder.name]
    assert [built.digest for built in dataset.listed(tmp_path / "two")] == [folder.name]


def test_the_same_dataset_of_two_machines_is_kept_once(settings: Settings, tmp_path: Path) -> None:
    first, second = build(settings, tmp_path / "one"), build(settings, tmp_path / "two")
    assert first.name == second.name and digest_path(first) != digest_path(second), "they were built at different times"
    for folder in (first, second):
        dataset_store.push(settings, folder, folder.parents[1])
    dataset_store.pull(settings, first.name, tmp_path / "three")
    assert digest_tree(dataset.datasets(tmp_path / "three") / first.name) == digest_tree(first)


def spoil(folder: Path) -> None:
    [part] = folder.glob("part-*")
    body = bytearray(part.read_bytes())
    body[len(body) // 2] ^= 1
    part.unlink()
    part.write_bytes(body)


def short(folder: Path) -> None:
    [part] = folder.glob("part-*")
    part.unlink()


def renamed(folder: Path) -> None:
    record = folder / "_dataset.json"
    text = record.read_text().replace(folder.name, "0" * 64)
    record.unlink()
    record.write_text(text)


@pytest.mark.parametrize("harm", [spoil, short, renamed])
def test_a_dataset_that_was_changed_is_neither_pushed_nor_taken_for_the_pulled_one(
    settings: Settings, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    folder = build(settings, tmp_path / "one")
    harm(folder)
    with pytest.raises(Tampered, match=r"is missing or was changed; remove the folder"):
        dataset_store.push(settings, folder, tmp_path / "one")
    assert dataset_store.stored(settings, tmp_path / "one", [folder.name]) == set()
    with pytest.raises(Tampered):
        dataset_store.pull(settings, folder.name, tmp_path / "one")


def test_a_note_that_leads_to_another_dataset_or_a_changed_one_is_refused(settings: Settings, tmp_path: Path) -> None:
    folder, home = build(settings, tmp_path / "one"), tmp_path / "one"
    other = build(settings, tmp_path / "one", ROWS[:20], "other")
    spoilt = build(settings, tmp_path / "one", ROWS[:10], "spoilt")
    spoil(spoilt)
    store = open_store(settings.store.uri, home)
    store.note(f"datasets/{folder.name}", store.put(other))
    store.note(f"datasets/{spoilt.name}", store.put(spoilt))
    for digest in (folder.name, spoilt.name):
        with pytest.raises(Tampered, match="is not dataset"):
            dataset_store.pull(settings, digest, tmp_path / "two")
        assert not (dataset.datasets(tmp_path / "two") / digest).exists()


def test_what_the_store_does_not_know_is_said(settings: Settings, tmp_path: Path) -> None:
    with pytest.raises(Refused, match="knows no dataset"):
        dataset_store.pull(settings, "0" * 64, tmp_path)
    for name in ("abc", "../../etc"):
        with pytest.raises(UsageError, match="not a digest"):
            dataset_store.pull(settings, name, tmp_path)
