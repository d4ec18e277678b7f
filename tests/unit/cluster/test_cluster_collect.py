"""What old jobs left goes; what anything else leads to stays; a sweep that is cut short is finished by the next. On a folder, and on S3."""

from __future__ import annotations

import os
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.cluster import collect, exchange, meeting
from autoglm_ops.cluster.collect import Held
from autoglm_ops.contracts.cluster import Shelf, Work, WorkResult
from autoglm_ops.contracts.record import digest_of
from autoglm_ops.errors import Tampered
from autoglm_ops.store.local import LocalStore

DAY = 86400.0
NOW = time.time()


@pytest.fixture
def store(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path / "store")


def put(store: Shelf, tmp_path: Path, text: str) -> str:
    folder = tmp_path / "given" / text
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "x").write_text(text)
    return store.put(folder)


def job(store: Shelf, tmp_path: Path, name: str, *inputs: str) -> tuple[str, str]:
    """A job that failed once, kept a checkpoint and succeeded. Its key, and the digest of its output."""
    given = {f"in/{text}": put(store, tmp_path, text) for text in inputs}
    key = exchange.describe(store, Work(name=name, command=("true",), inputs=given))
    exchange.claim(store, key)
    exchange.publish(store, WorkResult(key=key, attempt=1, state="failed", exit=75, seconds=1))
    folder = tmp_path / "kept" / name
    folder.mkdir(parents=True)
    (folder / "w").write_text(name)
    exchange.keep(store, key, "scratch/step-1", folder)
    exchange.claim(store, key)
    made = put(store, tmp_path, f"made by {name}")
    exchange.publish(store, WorkResult(key=key, attempt=2, state="succeeded", exit=0, seconds=1, outputs={"out": made}))
    return key, made


def age(store: LocalStore, days: float) -> None:
    """Everything that is in the store was put that long ago."""
    for path in store.root.glob("*.files"):
        os.utime(path, (NOW - days * DAY, NOW - days * DAY))


def sweep(store: LocalStore, *kept: str, days: float = 30) -> collect.Doomed:
    doomed = collect.find(store, NOW - days * DAY, kept)
    collect.clear(store, doomed, NOW - days * DAY)
    return doomed


def test_an_old_job_goes_with_all_it_left(store: LocalStore, tmp_path: Path) -> None:
    key, made = job(store, tmp_path, "old", "rows")
    other = put(store, tmp_path, "a registered model that no job names")
    age(store, 40)
    assert sweep(store).jobs == (key,)
    assert [entry.digest for entry in store.entries()] == [other] and list(store.notes()) == []
    assert exchange.finished(store, key) is None and exchange.newest(store, key) == 0
    assert not store.has(made)
    assert job(store, tmp_path / "again", "old", "rows") == (key, made), "it can be done anew"


def test_where_the_nodes_of_an_old_job_met_goes_with_it(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two starts of an attempt the second alone had something to settle."""
    key, _ = job(store, tmp_path, "old", "rows")
    monkeypatch.setenv("AUTOGLM_NODE_ADDRESS", "127.0.0.1")
    meeting.arrange(store, key, 1, None)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    said = meeting.arrange(store, key, 1, exchange.last_kept(store, key))
    meeting.settle(store, key, 1, said, had=False)
    age(store, 40)
    assert sweep(store).jobs == (key,) and [*store.entries(), *store.notes()] == []


def test_what_something_else_leads_to_stays(store: LocalStore, tmp_path: Path) -> None:
    old, made = job(store, tmp_path, "old", "shared", "dataset", "alone")
    dataset = put(store, tmp_path, "dataset")
    store.note(f"dataset/{'cd' * 32}", dataset)
    age(store, 40)
    young, _ = job(store, tmp_path, "young", "shared")
    assert sweep(store, made).jobs == (old,)
    assert all(store.has(digest) for digest in (made, dataset, put(store, tmp_path, "shared"), young))
    assert exchange.finished(store, young) is not None and exchange.last_kept(store, young) is not None
    assert store.noted(f"dataset/{'cd' * 32}") == dataset
    assert digest_of({}) != young and not any(entry.files.get("x") == "alone" for entry in store.entries())


def test_a_job_that_somebody_asks_for_again_is_young(store: LocalStore, tmp_path: Path) -> None:
    key, made = job(store, tmp_path, "asked", "rows")
    age(store, 40)
    exchange.describe(store, Work(name="asked", command=("true",), inputs={"in/rows": put(store, tmp_path, "rows")}))
    assert sweep(store) == collect.Doomed() and store.has(made) and exchange.finished(store, key) is not None


def test_a_long_job_that_ended_today_is_young(store: LocalStore, tmp_path: Path) -> None:
    key = exchange.describe(store, Work(name="long", command=("true",)))
    exchange.claim(store, key)
    age(store, 40)
    made = put(store, tmp_path, "made")
    exchange.publish(store, WorkResult(key=key, attempt=1, state="succeeded", exit=0, seconds=1, outputs={"out": made}))
    assert sweep(store) == collect.Doomed() and exchange.finished(store, key) is not None


def named(store: Shelf, folder: Path, name: str, text: str) -> str:
    folder.mkdir(parents=True)
    (folder / name).write_text(text)
    return store.put(folder)


@pytest.mark.parametrize("name", collect.KINDS)
def test_an_output_by_the_name_of_a_record_is_an_output(store: LocalStore, tmp_path: Path, name: str) -> None:
    """A job that wrote out/result.json had ended every later clearing."""
    key, _ = job(store, tmp_path, "old", "rows")
    made = named(store, tmp_path / "out", name, '{"accuracy": 0.9}')
    age(store, 40)
    assert sweep(store).jobs == (key,) and [entry.digest for entry in store.entries()] == [made]


def test_a_record_that_cannot_be_read_stops_the_clearing(store: LocalStore, tmp_path: Path) -> None:
    """Of another version, perhaps: what it leads to is not known, so nothing goes."""
    job(store, tmp_path, "old", "rows")
    later = named(store, tmp_path / "w", "work.json", '{"name": "train", "newer": 1}')
    told = named(store, tmp_path / "r", "result.json", '{"newer": 1}')
    age(store, 40)
    exchange.claim(store, later)
    before = list(store.entries())
    with pytest.raises(Tampered, match=r"work\.json is not a Work"):
        sweep(store)
    store.forget(f"attempt/{exchange.slot(later, 1)}")
    store.note(f"done/{'ab' * 32}", told)
    with pytest.raises(Tampered, match=r"result\.json is not a WorkResult"):
        sweep(store)
    assert list(store.entries()) == before


@pytest.mark.parametrize("cut", range(12))
def test_a_sweep_cut_short_anywhere_is_finished_by_the_next(
    store: LocalStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    """After each step no name leads to what is gone: the job is done, or it can be done anew."""
    key, _ = job(store, tmp_path, "old", "rows")
    age(store, 40)
    steps = [0]

    class Killed(Exception):
        pass

    def counted(act: object) -> object:
        def call(*arguments: object, **more: object) -> object:
            steps[0] += 1
            if steps[0] > cut:
                raise Killed
            return act(*arguments, **more)  # type: ignore[operator]

        return call

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # a kill leaves its folder: here, where it goes with the test
    with monkeypatch.context() as patch:
        for name in ("unlink", "replace"):
            patch.setattr(os, name, counted(getattr(os, name)))
        with suppress(Killed):
            sweep(store)
    found = exchange.finished(store, key)
    assert found is None or all(store.has(digest) for digest in found.outputs.values())
    sweep(store)
    assert list(store.entries()) == [] and list(store.notes()) == []
    assert job(store, tmp_path / "again", "old", "rows")[0] == key


DIGESTS = [digest_of(number) for number in range(6)]
records = st.lists(
    st.builds(
        Held,
        digest=st.sampled_from(DIGESTS),
        name=st.sampled_from(sorted(collect.KINDS)),
        at=st.sampled_from([0.0, 10.0]),
        leads=st.frozensets(st.sampled_from(DIGESTS), max_size=2),
    ),
    max_size=6,
    unique_by=lambda held: held.digest,
)


@given(records, st.dictionaries(st.sampled_from([f"{kind}/{one}" for kind in ("done", "dataset") for one in DIGESTS]), st.sampled_from(DIGESTS)),
       st.frozensets(st.sampled_from(DIGESTS)))  # fmt: skip
def test_nothing_that_is_young_or_named_elsewhere_is_doomed(
    found: list[Held], notes: dict[str, str], kept: frozenset[str]
) -> None:
    doomed = collect.decide(found, notes, 5.0, kept)
    gone = set(doomed.artefacts)
    young = {digest for held in found if held.at >= 5.0 for digest in (held.digest, *held.leads)}
    named = {digest for name, digest in notes.items() if name.startswith("dataset/")}
    assert gone.isdisjoint(young | named | kept)
    assert gone <= {digest for held in found for digest in (held.digest, *held.leads)}, "only what a job's record leads to"
    assert set(doomed.jobs) <= gone and all(name.partition("/")[2] in doomed.jobs for name in doomed.notes)
