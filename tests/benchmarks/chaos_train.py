"""SIGKILLs and SIGSTOPs at random moments of real two-rank DeepSpeed runs, each supervised to its end (threats F13, F14, F22).

    python tests/benchmarks/chaos_train.py --kills 200 --seconds 1200      # or: make chaos-train KILLS=200

A small GLM is trained at ZeRO 0, 1, 2 and 3 in fp32 and at ZeRO 1 in bf16, first unbroken, then again and again while a rank, or the
group's own process, is killed or stopped. The model and the record of each run must be those of the unbroken one, byte for byte.

A run lasts seconds and is struck in attempt after attempt, at a moment drawn evenly from the length of an unbroken one: while ranks
join and build as well as in a step, in a save and in the end. With a checkpoint every `EVERY` steps a third of the strikes or more fall
while one is being written. What the unbroken runs gave is kept in .autoglm/bench by the digest of job, code and versions.

`--seconds` ends a slice in order; its numbers are added to those of earlier slices of the same code in .autoglm/bench/chaos-train.json
unless `--fresh`. `--kills` counts SIGKILLs alone. Ends with 1 when a run was lost or differed.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import logging
import os
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from autoglm_ops.contracts.arrays import TokenMeta, write_arrays
from autoglm_ops.contracts.record import digest_of, digest_path, write_text
from autoglm_ops.contracts.training import ParallelPlan, RecoveryRules
from autoglm_ops.errors import AutoGLMError
from autoglm_ops.planning import deepspeed_config
from autoglm_ops.training import supervisor
from autoglm_ops.training.beat import read
from autoglm_ops.training.job import Job
from autoglm_ops.training.models import ModelSpec
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.warm import WarmGroup

ROOT = Path(__file__).parents[2]
KINDS = ((0, "fp32"), (1, "fp32"), (2, "fp32"), (3, "fp32"), (1, "bf16"))
EVERY = 4
RULES = RecoveryRules(restarts=20, hang_seconds=2.0, backoff_seconds=0.0, checkpoint_steps=EVERY)
MOST = 8
"""Injections into one run: the rest of it is left in peace, so that many runs are compared."""
GROUPS, STOPS = 0.04, 0.04
"""Shares of the strikes that kill the group's own process (a cold start follows), and that stop a rank (a hang is waited for)."""
BATCH, VOCABULARY, WIDTH = 16, 40, 24
_FLAT = {"reduce_bucket_size": 20_000, "allgather_bucket_size": 20_000}  # DeepSpeed's own are 2 GB, whatever the model
_LIVE = {"stage3_prefetch_bucket_size": 20_000, "stage3_max_live_parameters": 40_000, "stage3_param_persistence_threshold": 400}
BUCKETS: tuple[dict[str, int], ...] = ({}, _FLAT, _FLAT, _FLAT | _LIVE)


def tokens(folder: Path, rows: int = 320) -> Path:
    """Rows with token 7 are 'pos', rows with token 8 are 'neg'."""
    chance = np.random.default_rng(0)
    counts = {"train": rows, "validation": 64}
    for split, count in counts.items():
        labels = [int(label) for label in chance.integers(0, 2, count)]
        made = [chance.integers(10, VOCABULARY, chance.integers(2, WIDTH - 1)) for _ in labels]
        for row, label in zip(made, labels, strict=True):
            row[chance.integers(len(row))] = 8 - label
        write_arrays(folder, split, [[*row.tolist(), 2] for row in made], labels)
    meta = TokenMeta(vocabulary=VOCABULARY, pad_id=0, max_length=WIDTH, labels=("neg", "pos"), rows=counts)
    meta.write(folder / "meta.json")
    return folder


def job_of(root: Path, data: Path, zero: int, precision: str, steps: int, **update: Any) -> Job:
    """A run of its own in `root`."""
    plan = ParallelPlan.model_validate(
        {
            "ranks": 2, "micro_batch": BATCH // 4, "accumulation": 2, "zero_stage": zero, "precision": precision, "device": "cpu",
            "threads_per_rank": 1, "memory_bytes": {}, "fits": True, "reasons": (), "buckets": BUCKETS[zero],
        }
        | update
    )  # fmt: skip
    settings = {
        "learning_rate": 3e-3, "weight_decay": 0.1, "batch_size": BATCH, "warmup_share": 0.1, "schedule": "cosine",
        "label_smoothing": 0.0, "token_dropout": 0.1, "gradient_clip": 1.0, "epochs": 1, "max_steps": None, "evaluations": 4,
        "average": 0.5,  # half of a run is killed while its mean grows
    }  # fmt: skip
    meta = TokenMeta.read(data / "meta.json")
    model = ModelSpec.of({"name": "glm-tiny", "hidden_size": 40, "layers": 1, "heads": 2, "dropout": None}, meta, data)
    (root / "group").mkdir(parents=True, exist_ok=True)
    config = deepspeed_config(plan, learning_rate=3e-3, weight_decay=0.1, gradient_clip=1.0)
    return Job(
        tokens=str(data), out=str(root / "group"), scratch=str(root / "checkpoints"), plan=plan, deepspeed=config, model=model,
        recipe=Recipe.of(settings, rows=meta.rows["train"], seed=5, steps=steps), settings=settings, rules=RULES,
    )  # fmt: skip


def digests(job: Job) -> tuple[str, str]:
    out = Path(job.out)
    return digest_path(out / "weights" / "model.safetensors"), digest_path(out / "training.json")


@dataclass
class Tally:
    """What a slice did to one kind of run. `down` are seconds from an injection to the next step of the run; `moments` how many strikes
    fell in which phase of an attempt, and `save` those while a checkpoint was being written."""

    runs: int = 0
    killed: int = 0
    stopped: int = 0
    groups: int = 0
    lost: int = 0
    differed: int = 0
    seconds: float = 0.0
    down: list[float] = field(default_factory=list)
    moments: dict[str, int] = field(default_factory=dict)

    @property
    def kills(self) -> int:
        return self.killed + self.groups

    def plus(self, other: Tally) -> Tally:
        mine, theirs = vars(self), vars(other)
        moments = {name: self.moments.get(name, 0) + other.moments.get(name, 0) for name in self.moments | other.moments}
        return Tally(**{key: mine[key] + theirs[key] for key in mine if key != "moments"}, moments=moments)


class Unbroken(NamedTuple):
    """What a job gives when nobody disturbs it, and how many seconds a warm attempt takes."""

    weights: str
    record: str
    seconds: float


class Killer(threading.Thread):
    """Strikes each attempt of a run once, at a moment drawn from the `span` seconds of a whole one, `budget` times at most."""

    def __init__(self, group: WarmGroup, job: Job, tally: Tally, chance: random.Random, budget: int, span: float) -> None:
        super().__init__(daemon=True)
        self._group, self._job, self._tally, self._chance = group, job, tally, chance
        self._budget, self._span = budget, span
        self._struck: list[tuple[float, int]] = []
        self.over = threading.Event()

    def run(self) -> None:
        pids: dict[int, int] = {}
        while not self.over.wait(0.01):
            self._recovered()
            if self._budget > 0 and self._group.pids and self._group.pids != pids:
                pids = dict(self._group.pids)
                if not self._lasts(self._chance.uniform(0, self._span), pids) and self._strike(pids):
                    self._budget -= 1

    def _lasts(self, seconds: float, pids: dict[int, int]) -> bool:
        """Let the attempt be for so long; True when it was over before."""
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self._recovered()
            if self.over.wait(0.01) or self._group.pids != pids:
                return True
        return False

    def _strike(self, pids: dict[int, int]) -> bool:
        roll, process = self._chance.random(), self._group.process_id
        rank = self._chance.choice(list(pids))
        beats = {beat.rank: beat for beat in read(Path(self._job.out))}
        moment = "forked" if rank not in beats or beats[rank].pid != pids[rank] else beats[rank].phase
        writing = any(Path(self._job.scratch).glob(".staged-*"))
        group = roll < GROUPS and process is not None
        try:
            os.kill(process if group and process else pids[rank], signal.SIGSTOP if roll > 1 - STOPS else signal.SIGKILL)
        except ProcessLookupError:
            return False
        self._struck.append((time.monotonic(), max((beat.attempt for beat in beats.values()), default=0)))
        self._tally.groups += group
        self._tally.stopped += roll > 1 - STOPS
        self._tally.killed += not group and roll <= 1 - STOPS
        for name in (moment, *(("save",) if writing else ())):
            self._tally.moments[name] = self._tally.moments.get(name, 0) + 1
        return True

    def _recovered(self) -> None:
        """Whether a later attempt than the struck one takes steps."""
        for beat in read(Path(self._job.out)) if self._struck else ():
            for since, attempt in list(self._struck):
                if beat.phase == "training" and beat.attempt > attempt and beat.monotonic > since:
                    self._tally.down.append(beat.monotonic - since)
                    self._struck.remove((since, attempt))


class Campaign:
    """Runs in `place`, one after another, on one warm group; `known` is the file that unbroken runs are looked up in."""

    def __init__(self, place: Path, steps: int, seed: int, known: Path | None = None) -> None:
        self._place, self._steps, self._number = place, steps, seed
        self._chance = random.Random(seed)
        self._known = known or place / "unbroken.json"
        self._data = place / "tokens"
        self._data.mkdir()
        tokens(self._data)
        self.tallies = {f"ZeRO {zero} {precision}": Tally() for zero, precision in KINDS}

    @property
    def kills(self) -> int:
        return sum(tally.kills for tally in self.tallies.values())

    def run(self, kills: int, seconds: float, told: Callable[[dict[str, Tally]], None] = lambda _: None) -> None:
        """The kinds in turn, until `kills` were injected or `seconds` are over; `told` hears the sums after each run."""
        until = time.monotonic() + seconds
        with WarmGroup(self._job("none", 0, "fp32")) as group:
            while self.kills < kills and time.monotonic() < until:
                (zero, precision), tally = list(zip(KINDS, self.tallies.values(), strict=True))[self._number % len(KINDS)]
                meant = self._unbroken(group, zero, precision)
                name = f"run-{self._number}"
                began = time.monotonic()
                self._one(self._job(name, zero, precision), group, tally, min(MOST, kills - self.kills), meant)
                tally.seconds += time.monotonic() - began
                shutil.rmtree(self._place / name)
                told(self.tallies)
                self._number += 1

    def _job(self, name: str, zero: int, precision: str) -> Job:
        return job_of(self._place / name, self._data, zero, precision, self._steps)

    def _unbroken(self, group: WarmGroup, zero: int, precision: str) -> Unbroken:
        """What a calm run of this kind gives, run once for one job, code and versions. The second one is timed: the first imports."""
        name = f"calm-{zero}-{precision}"
        job = self._job(name, zero, precision)
        key = digest_of({"job": job.model_copy(update={"tokens": "", "out": "", "scratch": ""}).model_dump(), "code": code()})
        known = json.loads(self._known.read_text(encoding="utf-8")) if self._known.exists() else {}
        if key not in known:
            found = [self._calm(self._job(f"{name}-{turn}", zero, precision), group) for turn in range(2)]
            if found[0][:2] != found[1][:2]:
                raise SystemExit(f"{name}: two unbroken runs differ, nothing can be compared with them")
            known[key] = found[1]
            self._known.write_text(json.dumps(known, indent=2) + "\n", encoding="utf-8")
        return Unbroken(*known[key])

    def _calm(self, job: Job, group: WarmGroup) -> Unbroken:
        began = time.monotonic()
        supervisor.train(job, Path(job.out), group=group)
        return Unbroken(*digests(job), time.monotonic() - began)

    def _one(self, job: Job, group: WarmGroup, tally: Tally, budget: int, meant: Unbroken) -> None:
        killer = Killer(group, job, tally, self._chance, budget, meant.seconds)
        killer.start()
        try:
            supervisor.train(job, Path(job.out), group=group)
            tally.differed += digests(job) != meant[:2]
        except AutoGLMError as error:
            tally.lost += 1
            print(f"lost: {error}", file=sys.stderr)
        finally:
            killer.over.set()
            killer.join()
        tally.runs += 1


def code() -> str:
    """Digest of what a run is made by: the training package, this file, torch and deepspeed."""
    files = sorted([*(ROOT / "autoglm_ops" / "training").rglob("*.py"), Path(__file__)])
    versions = {name: importlib.metadata.version(name) for name in ("torch", "deepspeed", "transformers")}
    return digest_of({"files": [digest_path(path) for path in files], **versions})


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values) or [0.0]
    return ordered[round(share * (len(ordered) - 1))]


def table(tallies: dict[str, Tally]) -> Table:
    """A row a kind of run, and their sum."""
    columns = (
        "runs",
        "SIGKILL",
        "group killed",
        "SIGSTOP",
        "survived",
        "lost",
        "differed",
        "recovery p50 s",
        "p95 s",
        "s a kill",
    )
    shown = Table("run", *columns, box=None)
    for name, one in {**tallies, "all": total(tallies)}.items():
        survived = one.runs - one.lost - one.differed
        numbers = (one.runs, one.killed, one.groups, one.stopped, survived, one.lost, one.differed)
        times = (percentile(one.down, 0.5), percentile(one.down, 0.95), one.seconds / max(1, one.kills))
        shown.add_row(name, *map(str, numbers), *(f"{value:.2f}" for value in times))
    return shown


def total(tallies: dict[str, Tally]) -> Tally:
    whole = Tally()
    for one in tallies.values():
        whole = whole.plus(one)
    return whole


def _write(path: Path, done: dict[str, Tally]) -> None:
    """The record of all slices so far."""
    whole = total(done)
    said = {name: value for name, value in vars(whole).items() if name != "down"}
    said |= {
        "injected": whole.kills + whole.stopped, "sigkills": whole.kills, "survived": whole.runs - whole.lost - whole.differed,
        "recovery_p50": percentile(whole.down, 0.5), "recovery_p95": percentile(whole.down, 0.95),
    }  # fmt: skip
    record = {"code": code(), "total": said, "runs": {name: vars(one) for name, one in done.items()}}
    write_text(path, json.dumps(record, indent=2) + "\n")


def _before(path: Path) -> dict[str, Tally]:
    """What earlier slices of the same code found."""
    if not path.exists():
        return {}
    record = json.loads(path.read_text(encoding="utf-8"))
    if record.get("code") != code():
        print(f"{path.name} is of other code: its numbers are not added to", file=sys.stderr)
        return {}
    return {name: Tally(**one) for name, one in record["runs"].items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=1200.0)
    parser.add_argument("--steps", type=int, default=24)
    parser.add_argument("--fresh", action="store_true", help="do not add to earlier slices")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.setdefault("AUTOGLM_LOG_LEVEL", "ERROR")  # the ranks'
    bench = ROOT / ".autoglm" / "bench"
    bench.mkdir(parents=True, exist_ok=True)
    path = bench / "chaos-train.json"
    before = {} if asked.fresh else _before(path)
    start = total(before).kills

    def sums(found: dict[str, Tally]) -> dict[str, Tally]:
        return {name: before.get(name, Tally()).plus(one) for name, one in found.items()}

    with tempfile.TemporaryDirectory(prefix="autoglm-chaos-") as place:
        campaign = Campaign(Path(place), asked.steps, 1000 + start, bench / "chaos-train-unbroken.json")
        campaign.run(asked.kills - start, asked.seconds, lambda found: _write(path, sums(found)))
    done = sums(campaign.tallies)
    _write(path, done)
    whole = total(done)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 150)
    console.print(table(done))
    console.print("struck in: " + ", ".join(f"{name} {count}" for name, count in sorted(whole.moments.items())))
    if whole.kills < asked.kills:
        console.print(f"{whole.kills} of {asked.kills} SIGKILLs so far; the same command goes on")
    sys.exit(bool(whole.lost or whole.differed))


if __name__ == "__main__":
    main()
