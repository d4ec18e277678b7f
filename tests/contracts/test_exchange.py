"""One key, one result: whoever publishes, however often, in whatever order (threats F21). On a folder and on a real S3 server."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.cluster import exchange
from autoglm_ops.cluster.exchange import Fenced
from autoglm_ops.contracts.cluster import Store, WorkResult
from autoglm_ops.errors import Refused, Tampered
from autoglm_ops.store import open_store

KEY = "ab" * 32


@pytest.fixture(params=["folder", "s3"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return str(tmp_path / "store") if request.param == "folder" else f"{request.getfixturevalue('s3')}/{tmp_path.name}"


def opened(uri: str) -> Store:
    return open_store(uri, Path())


def result(attempt: int, state: str = "succeeded", said: str = "") -> WorkResult:
    return WorkResult.model_validate(
        {
            "key": KEY,
            "attempt": attempt,
            "state": state,
            "exit": 0 if state == "succeeded" else 75,
            "seconds": 1,
            "reason": said,
        }
    )


def _race(uri: str, times: int, start: object, answers: object) -> None:
    """A scheduler that claims, works and publishes, again and again. What it saw standing is answered."""
    store, seen, fenced = opened(uri), set(), 0
    start.wait()  # type: ignore[attr-defined]
    for number in range(times):
        if exchange.finished(store, KEY) is None:
            attempt = exchange.claim(store, KEY)
        try:
            seen.add(exchange.publish(store, result(attempt, said=f"{os.getpid()} {number}")).reason)
        except Fenced:
            fenced += 1
    answers.put((seen, fenced))  # type: ignore[attr-defined]


def race(uri: str, processes: int, times: int) -> tuple[set[str], int]:
    """Every result that anybody saw standing, and how many publications were fenced off."""
    context = multiprocessing.get_context("fork")
    start, answers = context.Barrier(processes), context.Queue()
    racers = [context.Process(target=_race, args=(uri, times, start, answers)) for _ in range(processes)]
    for racer in racers:
        racer.start()
    found = [answers.get(timeout=900) for _ in racers]
    for racer in racers:
        racer.join()
    return set[str]().union(*(seen for seen, _ in found)), sum(fenced for _, fenced in found)


def test_racing_publications_make_one_result(uri: str) -> None:
    seen, _ = race(uri, processes=8, times=5)
    assert len(seen) == 1
    standing = exchange.finished(opened(uri), KEY)
    assert standing is not None and {standing.reason} == seen


def test_claims_are_numbers_without_gaps(uri: str) -> None:
    assert [exchange.claim(opened(uri), KEY) for _ in range(9)] == list(range(1, 10))
    assert exchange.newest(opened(uri), KEY) == 9


def test_what_was_kept_last_is_found(uri: str, tmp_path: Path) -> None:
    for number in range(5):
        folder = tmp_path / f"step-{number}"
        folder.mkdir()
        (folder / "w").write_text(str(number))
        exchange.keep(opened(uri), KEY, f"scratch/step-{number}", folder)
    kept = exchange.last_kept(opened(uri), KEY)
    assert kept is not None and kept.path == "scratch/step-4"


def test_a_result_of_another_job_is_no_answer(uri: str) -> None:
    store = opened(uri)
    other = "cd" * 32
    kept = exchange._put(store, "result.json", result(1))
    store.note(f"done/{other}", kept)
    with pytest.raises(Tampered, match="was changed"):
        exchange.finished(store, other)


@pytest.mark.parametrize("path", ["../../keys", "/etc/cron.d", "out/../../x", "a\0b"])
def test_F18_a_result_that_would_lead_out_of_its_folder_is_refused(uri: str, path: str) -> None:
    """Jobs write results, and a launcher lays down what they name: a job with the team's keys had chosen folders of the launcher's machine."""
    store = opened(uri)
    kept = exchange._put(store, "result.json", result(1).model_copy(update={"outputs": {path: "cd" * 32}}))
    store.note(f"done/{KEY}", kept)
    for ask in (exchange.finished, lambda store, key: exchange.ended(store, key, 1)):
        with pytest.raises(Refused, match="outside its work folder"):
            ask(store, KEY)


@settings(max_examples=40)
@given(st.lists(st.tuples(st.sampled_from(["claim", "succeed", "fail"]), st.integers(1, 5)), max_size=14))
def test_an_older_attempt_never_replaces_anything(steps: list[tuple[str, int]]) -> None:
    """Any history of claims and publications: the first success stands for good, and only of an attempt that was the newest then."""
    with tempfile.TemporaryDirectory() as folder:
        store, claimed, standing = open_store(folder, Path(folder)), 0, None
        numbers = itertools.count()
        for what, attempt in steps:
            if what == "claim":
                claimed = exchange.claim(store, KEY)
                continue
            if attempt > claimed:
                continue
            state = "succeeded" if what == "succeed" else "failed"
            try:
                got = exchange.publish(store, result(attempt, state, str(next(numbers))))
            except Fenced:
                assert standing is None and attempt < claimed
                continue
            assert standing is None or got == standing
            assert standing is not None or attempt == claimed
            standing = got if got.state == "succeeded" else standing
            assert exchange.finished(store, KEY) == standing
