"""Studies whose coordinators and workers are killed at random points, on SQLite and on PostgreSQL, each to its end.

    python tests/benchmarks/chaos_tune.py --kills 100      # or: make chaos-tune

A process with everything imported forks the coordinator that asks for a round, and a worker for each of its looks, and kills some of
them (SIGKILL) at a random moment of their life: before the first beat, between the trial's creation and its score, inside a commit.
Whatever was killed is started again, as Airflow would. Every study must end with all trials terminal and the very report of a study
that nobody disturbed. What a look costs is a formula and a nap: this is about the study, not the training.
Leaves .autoglm/bench/chaos-tune.json; ends with 1 when one of these did not hold.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.training import TuningReport
from autoglm_ops.stages.desk import Attended, Desk, answer, settled
from autoglm_ops.tuning.database import Database
from autoglm_ops.tuning.rounds import Look
from autoglm_ops.tuning.space import parse_space
from autoglm_ops.tuning.strategies import make
from autoglm_ops.tuning.study import Budget, Choices, Place, Session, run

ROOT = Path(__file__).parents[2]
SPACE = parse_space({"train.learning_rate": {"loguniform": [1e-4, 1e-1]}, "train.schedule": {"choice": ["linear", "cosine"]}})
DEFAULT = {"train.learning_rate": 1e-1, "train.schedule": "linear"}
RUNGS = (10, 20, 30)
RESTARTS = 10_000
SHARE = 0.5
"""Of the processes that are killed."""


def quality(number: int, choices: Choices, since: int, to: int) -> float:
    time.sleep(0.01)
    return (1 - abs(math.log10(choices["train.learning_rate"]) + 3) / 5) * to / 30


class Campaign:
    """Kills, and counts what was killed and what held. `url`: of PostgreSQL, None for SQLite."""

    def __init__(self, url: str | None, seed: int) -> None:
        self.url, self.chance = url, random.Random(seed)
        self.killed: Counter[str] = Counter()
        self.lived: dict[str, float] = {}

    def study(self, folder: Path, number: int, kills: int) -> TuningReport:
        """One study to its end; no more than `kills` kills in all."""
        desk, budget = Desk(folder / "looks"), _budget(number)

        def ask() -> list[str]:
            session = self._session(folder, budget)
            trainer = Attended(desk, _nobody, RESTARTS)
            while looks := session.pending():
                if missing := [look for look in looks if settled(desk, look, RESTARTS) is None]:
                    return [look.model_dump_json() for look in missing]
                for look in looks:
                    session.take(look, trainer)
            return []

        def report() -> str:
            return run(self._session(folder, budget), Attended(desk, _nobody, RESTARTS), budget).to_json()

        while texts := self._until("ask", ask, kills):
            for text in texts:
                look = Look.model_validate_json(text)
                self._maybe("look", lambda look=look: answer(desk, look, quality).score, kills)
        return TuningReport.model_validate_json(self._until("report", report, kills))

    def calm(self, folder: Path, number: int) -> TuningReport:
        """The same study in one process that nobody disturbs."""
        budget = _budget(number)
        return TuningReport.model_validate_json(
            self._until("report", lambda: run(self._session(folder, budget), quality, budget).to_json(), 0)
        )

    def states(self, folder: Path, number: int) -> list[str]:
        """The trials that count, as the database has them."""
        opened = lambda: Database(folder, self.url, _budget(number).name, SPACE, DEFAULT).states  # noqa: E731
        return list(self._until("report", opened, 0))

    def _session(self, folder: Path, budget: Budget) -> Session:
        strategy = make("tpe", SPACE, RUNGS, seed=budget.seed, first=(DEFAULT,))
        return Session(SPACE, DEFAULT, strategy, budget, Place(folder=folder, url=self.url))

    def _until(self, kind: str, work: Callable[[], Any], kills: int) -> Any:
        """What `work` answers in a process that lived to say it."""
        while True:
            answered, value = self._maybe(kind, work, kills)
            if answered:
                return value

    def _maybe(self, kind: str, work: Callable[[], Any], kills: int) -> tuple[bool, Any]:
        """Run `work` in a child, and perhaps kill it at some moment of the life that its kind usually has."""
        read, write = os.pipe()
        began, child = time.monotonic(), os.fork()
        if child == 0:
            _child(read, write, work)
        os.close(write)
        doomed = kind in self.lived and self.chance.random() < SHARE and sum(self.killed.values()) < kills
        if doomed:
            time.sleep(self.chance.random() * 1.2 * self.lived[kind])
            os.kill(child, signal.SIGKILL)
        with os.fdopen(read, "rb") as pipe:
            said = pipe.read()
        _, status = os.waitpid(child, 0)
        if os.WIFSIGNALED(status):
            self.killed[kind] += 1
            return False, None
        assert os.WEXITSTATUS(status) == 0, f"{kind} failed"
        if not doomed:
            lived = time.monotonic() - began
            self.lived[kind] = 0.7 * self.lived.get(kind, lived) + 0.3 * lived
        return True, json.loads(said)


def _child(read: int, write: int, work: Callable[[], Any]) -> None:
    code = 1
    try:
        os.close(read)
        said = json.dumps(work()).encode()
        with os.fdopen(write, "wb") as pipe:
            pipe.write(said)
        code = 0
    finally:
        if code:
            sys.excepthook(*sys.exc_info())
        os._exit(code)


def _nobody(*asked: object) -> float:
    raise AssertionError("a coordinator trains nothing")


def _budget(number: int) -> Budget:
    return Budget(trials=6, steps=30, parallel=3, seconds=3600, seed=number % 5, context=f"chaos {os.getpid()} {number}")


def campaign(url: str | None, kills: int, folder: Path, seed: int = 1) -> dict[str, Any]:
    """Studies until `kills` processes were killed. What was killed, and how many studies came out right."""
    chaos, right, studies = Campaign(url, seed), 0, 0
    began = time.monotonic()
    while sum(chaos.killed.values()) < kills or studies == 0:
        calm = Campaign(None, 0).calm(folder / f"calm-{studies}", studies)
        wild = chaos.study(folder / f"wild-{studies}", studies, kills)
        terminal = {"complete", "pruned", "failed"}
        right += wild == calm and set(chaos.states(folder / f"wild-{studies}", studies)) <= terminal
        studies += 1
    seconds = round(time.monotonic() - began, 1)
    return {
        "studies": studies,
        "right": right,
        "killed": dict(chaos.killed),
        "kills": sum(chaos.killed.values()),
        "seconds": seconds,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "tests" / "contracts"))
    from postgres_server import binaries, serve_postgres

    found: dict[str, Any] = {}
    for name in ("sqlite", "postgresql"):
        if name == "postgresql" and binaries() is None:
            print(
                "postgresql: not here, or not to be reached by another user than root; install the extra dev", file=sys.stderr
            )
            continue
        with tempfile.TemporaryDirectory() as folder, serve_postgres() if name == "postgresql" else nullcontext() as url:
            found[name] = campaign(url, options.kills, Path(folder), options.seed)
        one = found[name]
        print(
            f"{name}: {one['kills']} kills {one['killed']} in {one['studies']} studies, {one['right']} of them right, {one['seconds']} s"
        )
    path = ROOT / ".autoglm" / "bench" / "chaos-tune.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=2) + "\n")
    return 0 if found and all(one["right"] == one["studies"] for one in found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
