"""A whole build on this machine: phase after phase, each over its shards, in as many processes as asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future, ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from autoglm_ops.contracts.flow import BuiltDataset
from autoglm_ops.data.build import tasks
from autoglm_ops.data.build.finish import Check, finish, finished, unchecked
from autoglm_ops.data.build.plan import read_plan
from autoglm_ops.data.readers import Limits

PHASES = ("read", "match", "verify", "settle", "weigh", "write")
Watch = Callable[[str, int, int], None]
"""Phase, tasks done, tasks in all."""


def run(work: Path, datasets: Path, limits: Limits, jobs: int, watch: Watch, check: Check = unchecked) -> BuiltDataset:
    """Every phase of the build in `work`, then `datasets/<digest>/`. Raises what its tasks raise; what was done stays done."""
    if finished(work, datasets) is None:
        try:
            _all(work, limits, min(jobs, len(read_plan(work).shards)), watch)
        except OSError:
            if finished(work, datasets) is None:
                raise
            # Another run of this build ended first, and cleared away what its tasks had left for this one's.
    return finish(work, datasets, check)


def _all(work: Path, limits: Limits, jobs: int, watch: Watch) -> None:
    if jobs == 1:
        _phases(work, limits, None, watch)
        return
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        _phases(work, limits, pool, watch)


def numbers(work: Path, phase: str) -> range:
    """The tasks of a phase. Those of `match` are known when `read` is done."""
    if phase == "settle":
        return range(1)
    return range(tasks.ranges(work) if phase == "match" else len(read_plan(work).shards))


def task(work: Path, phase: str, number: int, limits: Limits) -> None:
    """One task, wherever it runs."""
    if phase == "read":
        tasks.read(work, number, limits)
    elif phase == "settle":
        tasks.settle(work)
    else:
        each: dict[str, Callable[[Path, int], None]] = {
            "match": tasks.match,
            "verify": tasks.verify,
            "weigh": tasks.weigh,
            "write": tasks.write,
        }
        each[phase](work, number)


def _phases(work: Path, limits: Limits, pool: Executor | None, watch: Watch) -> None:
    for phase in PHASES:
        todo = numbers(work, phase)
        watch(phase, 0, len(todo))
        done = _in_order(work, phase, todo, limits) if pool is None else _anyhow(work, phase, todo, limits, pool)
        for place, _ in enumerate(done, start=1):
            watch(phase, place, len(todo))


def _in_order(work: Path, phase: str, todo: range, limits: Limits) -> Iterable[None]:
    for number in todo:
        task(work, phase, number, limits)
        yield


def _anyhow(work: Path, phase: str, todo: range, limits: Limits, pool: Executor) -> Iterable[None]:
    """As they end. The first failure stops those that have not begun."""
    futures: list[Future[None]] = [pool.submit(task, work, phase, number, limits) for number in todo]
    try:
        for future in as_completed(futures):
            future.result()
            yield
    finally:
        for future in futures:
            future.cancel()
