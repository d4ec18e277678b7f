"""Two that make the same at the same time: a retry whose first try still lives. Nobody's half is taken for whole."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import build_corpus
import pytest

from autoglm_ops.contracts.record import digest_tree
from autoglm_ops.data.build.folders import made_whole
from autoglm_ops.data.build.plan import plan
from autoglm_ops.data.build.whole import PHASES, numbers, run, task
from autoglm_ops.data.readers import Limits


def test_the_first_to_begin_ends_quietly_when_the_other_has_made_it(tmp_path: Path) -> None:
    with made_whole(tmp_path / "it") as first:
        (first / "a").write_text("half")
        with made_whole(tmp_path / "it") as second:
            (second / "a").write_text("whole")
            (second / "b").write_text("whole")
    assert {path.name: path.read_text() for path in (tmp_path / "it").iterdir()} == {"a": "whole", "b": "whole"}
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_one_that_fails_takes_nothing_from_the_other(tmp_path: Path) -> None:
    with made_whole(tmp_path / "it") as first:
        (first / "a").write_text("whole")
        with pytest.raises(KeyError), made_whole(tmp_path / "it"):
            raise KeyError
    assert [path.name for path in tmp_path.rglob("*")] == ["it", "a"]


def test_what_a_killed_one_left_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / "it.0123.part").mkdir()
    with made_whole(tmp_path / "it") as folder:
        (folder / "a").write_text("whole")
    assert [path.name for path in tmp_path.iterdir()] == ["it"]


def test_every_task_twice_at_once_makes_the_same_dataset(tmp_path: Path) -> None:
    build_corpus.write(tmp_path / "raw")
    recipe = build_corpus.recipe(source_cap=90)
    alone = run(
        plan(str(tmp_path / "raw"), recipe, tmp_path / "one", Limits()), tmp_path / "once", Limits(), 1, lambda *_: None
    )
    work = plan(str(tmp_path / "raw"), recipe, tmp_path / "two", Limits())
    barrier = Barrier(2)

    def together(phase: str, number: int) -> None:
        barrier.wait(30)
        task(work, phase, number, Limits())

    with ThreadPoolExecutor(2) as pool:
        for phase in PHASES:
            for number in numbers(work, phase):
                for ended in [pool.submit(together, phase, number) for _ in "12"]:
                    ended.result(60)
        finishers = [pool.submit(run, work, tmp_path / "twice", Limits(), 1, lambda *_: None) for _ in "123"]
        assert [ended.result(60) for ended in finishers] == [alone] * 3
    assert digest_tree(tmp_path / "twice") == digest_tree(tmp_path / "once")
