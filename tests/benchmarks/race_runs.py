"""Many runs of one key at once, each through its effects: one result, one registered version, one promotion (threats F21).

    python tests/benchmarks/race_runs.py --runs 10000 --store s3       # or: make race-runs RUNS=10000; --store folder
    python tests/benchmarks/race_runs.py --runs 2000 --keys 250        # 250 such races, one after the other

Eight processes, each a scheduler that again and again takes the key for its own: it claims an attempt when there is no result, publishes
what it made, registers the model, and promotes it. Whoever comes first decides a key, so many keys make many first moments; all processes
begin each key together. The store is a real S3 server (or a folder), the registry MLflow on SQLite, the ledger the platform's own. Leaves
.autoglm/bench/race-runs.json; ends with 1 unless there was one of each for each key.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tests" / "contracts")]

from autoglm_ops.cluster import exchange  # noqa: E402
from autoglm_ops.cluster.exchange import Fenced  # noqa: E402
from autoglm_ops.contracts.cluster import WorkResult  # noqa: E402
from autoglm_ops.contracts.record import digest_of  # noqa: E402
from autoglm_ops.release import moves  # noqa: E402
from autoglm_ops.release import registry as names  # noqa: E402
from autoglm_ops.release.ledger import Ledger  # noqa: E402
from autoglm_ops.release.promotion import Decision  # noqa: E402
from autoglm_ops.release.registry import Registry  # noqa: E402
from autoglm_ops.store import open_store  # noqa: E402
from autoglm_ops.tracking.mlflow import connect, default_uri  # noqa: E402

PATIENCE_SECONDS = 3600
WORK_SECONDS = 0.3
"""What an attempt's work takes at most: longer than the others need to claim theirs, so that older attempts do end later."""


@dataclass(frozen=True)
class Found:
    """What races left. results: different results that anybody saw; the others: how many there are at the end."""

    runs: int
    keys: int
    processes: int
    seconds: float
    results: int
    fenced: int
    versions: int
    promotions: int
    promoted: int
    """How many runs were told that it was they who promoted."""
    uneven: int
    """Keys with another number of versions or promotions than one."""

    @property
    def right(self) -> bool:
        return {self.results, self.versions, self.promotions, self.promoted} == {self.keys} and not self.uneven


class Effects:
    """Register and promote as the stages of those names do, for a run that has its result. Connect in each process anew."""

    def __init__(self, home: Path) -> None:
        self.registry = Registry(connect(None, home), default_uri(home), "raced")
        self.ledger = Ledger(home / "ledger.jsonl")

    @staticmethod
    def prepare(home: Path) -> tuple[str, str]:
        """Make the databases in a process of its own, so that none is open where others are forked. The tracked run and its artefacts."""
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        import mlflow  # noqa: F401 - once, for all that are forked from here

        context = multiprocessing.get_context("fork")
        told = context.Queue()
        one = context.Process(target=_prepare, args=(home, told))
        one.start()
        found: tuple[str, str] = told.get(timeout=300)
        one.join()
        return found

    def __call__(self, run: str, digest: str, tracked: tuple[str, str]) -> moves.Moved:
        ident, artifacts = tracked
        tags = {names.RUN_KEY: run, names.DATA_UNTIL: "2026-01-05", names.CONTENT_KEY: run}
        version = moves.register(self.registry, self.ledger, digest, f"{artifacts}/model", ident, tags)
        request = moves.Request(model=version.model, run=run, actor="race", reasons=())
        return moves.promote(self.registry, self.ledger, request, lambda now, lines: Decision(True, ("raced",)), time.time())

    def count(self, run: str) -> tuple[int, int]:
        """How many versions and how many promotions there are of `run`."""
        versions = [version for version in self.registry.versions() if version.tags.get(names.RUN_KEY) == run]
        return len(versions), sum(line.action == "promote" and line.run == run for line in self.ledger.lines())


def _prepare(home: Path, told: Any) -> None:
    import mlflow

    connect(None, home)
    client = mlflow.MlflowClient(tracking_uri=default_uri(home))
    made = client.create_run("0")
    told.put((made.info.run_id, made.info.artifact_uri))


def _runs(uri: str, home: Path, keys: int, times: int, tracked: tuple[str, str], start: Any, done: Any, answers: Any) -> None:
    store, effects, seen, counts = open_store(uri, home), Effects(home), set(), Counter[str]()
    for key in (digest_of(["race", number]) for number in range(keys)):
        start.wait(PATIENCE_SECONDS)
        for number in range(times):
            attempt = 1
            if exchange.finished(store, key) is None:
                attempt = exchange.claim(store, key)
                time.sleep(random.uniform(0, WORK_SECONDS))
            made = WorkResult(
                key=key,
                attempt=attempt,
                state="succeeded",
                exit=0,
                seconds=1,
                reason=f"{os.getpid()} {number}",
                outputs={"out/train": key},
            )
            try:
                standing = exchange.publish(store, made)
                seen.add(f"{key} {standing.reason}")
                counts["promoted"] += not effects(key[:16], standing.outputs["out/train"], tracked).again
            except Fenced:
                counts["fenced"] += 1
            with done.get_lock():
                done.value += 1
    answers.put((seen, counts))


def race(uri: str, home: Path, runs: int, processes: int = 8, keys: int = 1) -> Found:
    """`runs` in all, shared out evenly over the keys and the processes, which are all ready before the first begins."""
    tracked = Effects.prepare(home)
    context = multiprocessing.get_context("fork")
    start, done, answers = context.Barrier(processes), context.Value("q", 0), context.Queue()
    times = max(1, runs // (processes * keys))
    runs = times * processes * keys
    racers = [
        context.Process(target=_runs, args=(uri, home, keys, times, tracked, start, done, answers)) for _ in range(processes)
    ]
    begun = time.monotonic()
    for racer in racers:
        racer.start()
    with tqdm(total=runs, unit="run", disable=None) as bar:
        while done.value < runs and all(racer.exitcode in (None, 0) for racer in racers):
            time.sleep(0.2)
            bar.update(done.value - bar.n)
    if lost := [racer.exitcode for racer in racers if racer.exitcode]:
        start.abort()
        sys.exit(f"race_runs: {len(lost)} of {processes} processes ended with {lost}; what they say stands above")
    said = [answers.get(timeout=PATIENCE_SECONDS) for _ in racers]
    seconds = round(time.monotonic() - begun, 1)
    for racer in racers:
        racer.join()
    counts = sum((one for _, one in said), Counter[str]())
    counted = [Effects(home).count(digest_of(["race", number])[:16]) for number in range(keys)]
    versions, promotions = (sum(column) for column in zip(*counted, strict=True))
    results = len(set[str]().union(*(seen for seen, _ in said)))
    uneven = sum(pair != (1, 1) for pair in counted)
    return Found(runs, keys, processes, seconds, results, counts["fenced"], versions, promotions, counts["promoted"], uneven)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--keys", type=int, default=1, help="so many races, each of its share of the runs")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--store", choices=("s3", "folder"), default="s3")
    asked = parser.parse_args()
    with ExitStack() as stack:
        place = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="autoglm-race-")))
        uri = str(place / "store")
        if asked.store == "s3":
            from s3_server import BUCKET, serve_s3

            (place / "s3").mkdir()
            os.environ.update(stack.enter_context(serve_s3(place / "s3")))
            uri = f"s3://{BUCKET}/race"
        found = race(uri, place / "home", asked.runs, asked.processes, asked.keys)
    path = ROOT / ".autoglm" / "bench" / "race-runs.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"store": asked.store, **asdict(found)}, indent=2) + "\n")
    print(
        f"{found.runs} runs of {found.keys} keys by {found.processes} processes on {asked.store}, {found.seconds} s: results "
        f"{found.results}, versions {found.versions}, promotions {found.promotions}; {found.fenced} fenced off"
    )
    sys.exit(not found.right)


if __name__ == "__main__":
    main()
