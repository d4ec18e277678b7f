"""SIGKILLs and SIGSTOPs at random moments of real two-rank DeepSpeed runs, each supervised to its end (threats F13, F14, F22).

    python tests/benchmarks/chaos_train.py --kills 200 --seconds 540      # or: make chaos-train KILLS=200

A small GLM is trained at ZeRO 0, 1, 2 and 3 in fp32 and at ZeRO 1 in bf16, first unbroken, then again and again while a rank, or the
group's own process, is killed or stopped. The model and the record of each run must be those of the unbroken one, byte for byte.
`--seconds` ends a slice in order; its numbers are added to those of earlier slices in .autoglm/bench/chaos-train.json unless `--fresh`.
Ends with 1 when a run was lost or differed.
"""

from __future__ import annotations

import argparse
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
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from autoglm_ops.contracts.arrays import TokenMeta, write_arrays
from autoglm_ops.contracts.record import digest_path
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
RULES = RecoveryRules(restarts=20, hang_seconds=5.0, backoff_seconds=0.0, checkpoint_steps=10)
MOST = 5
"""Injections into one run: the rest of it is left in peace, so that many runs are compared."""
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
    """What a slice did to one kind of run. `down` are seconds from an injection to the next step of the run."""

    runs: int = 0
    killed: int = 0
    stopped: int = 0
    groups: int = 0
    lost: int = 0
    differed: int = 0
    down: list[float] = field(default_factory=list)


class Killer(threading.Thread):
    """Kills or stops a process of the group at random moments until the run ends."""

    def __init__(self, group: WarmGroup, folder: Path, tally: Tally, chance: random.Random, budget: int) -> None:
        super().__init__(daemon=True)
        self._group, self._folder, self._tally, self._chance, self._budget = group, folder, tally, chance, budget
        self.over = threading.Event()

    def run(self) -> None:
        while self._budget > 0 and not self.over.wait(self._chance.uniform(0.1, 4.0)):
            beats = [beat for beat in read(self._folder) if beat.phase in ("joining", "building", "training")]
            pids = dict(self._group.pids)
            if not pids or not beats:
                continue
            if not self._strike(pids):
                continue
            self._budget -= 1
            self._recovered(time.monotonic(), max(beat.attempt for beat in beats))

    def _strike(self, pids: dict[int, int]) -> bool:
        roll = self._chance.random()
        process = self._group.process_id
        if roll < 0.05 and process:
            os.kill(process, signal.SIGKILL)
            self._tally.groups += 1
            return True
        pid = self._chance.choice(list(pids.values()))
        try:
            os.kill(pid, signal.SIGSTOP if roll > 0.95 else signal.SIGKILL)
        except ProcessLookupError:
            return False
        if roll > 0.95:
            self._tally.stopped += 1
        else:
            self._tally.killed += 1
        return True

    def _recovered(self, since: float, attempt: int) -> None:
        """Wait until a later attempt takes steps."""
        while not self.over.is_set():
            beats = [beat for beat in read(self._folder) if beat.attempt > attempt and beat.phase == "training"]
            if beats:
                self._tally.down.append(min(beat.monotonic for beat in beats) - since)
                return
            time.sleep(0.02)


def campaign(
    kills: int, seconds: float, steps: int, seed: int, place: Path, told: Callable[[dict[str, Tally]], None] = lambda _: None
) -> dict[str, Tally]:
    """Run after run, the kinds in turn, until `kills` were injected or `seconds` are over; `told` hears the sums after each run."""
    chance, until = random.Random(seed), time.monotonic() + seconds
    data = place / "tokens"
    data.mkdir()
    tokens(data)
    tallies = {f"ZeRO {zero} {precision}": Tally() for zero, precision in KINDS}
    meant: dict[str, tuple[str, str]] = {}
    number = seed  # so that slices begin with different kinds
    with WarmGroup(job_of(place / "none", data, 0, "fp32", steps)) as group:
        while injected(tallies) < kills and time.monotonic() < until:
            (zero, precision), tally = list(zip(KINDS, tallies.values(), strict=True))[number % len(KINDS)]
            name = f"ZeRO {zero} {precision}"
            if name not in meant:
                job = job_of(place / f"calm-{zero}-{precision}", data, zero, precision, steps)
                supervisor.train(job, Path(job.out), group=group)
                meant[name] = digests(job)
            job = job_of(place / f"run-{number}", data, zero, precision, steps)
            one_run(job, group, tally, chance, min(MOST, kills - injected(tallies)), meant[name])
            shutil.rmtree(place / f"run-{number}")
            told(tallies)
            number += 1
    return tallies


def one_run(job: Job, group: WarmGroup, tally: Tally, chance: random.Random, budget: int, meant: tuple[str, str]) -> None:
    killer = Killer(group, Path(job.out), tally, chance, budget)
    killer.start()
    try:
        supervisor.train(job, Path(job.out), group=group)
        tally.differed += digests(job) != meant
    except AutoGLMError as error:
        tally.lost += 1
        print(f"lost: {error}", file=sys.stderr)
    finally:
        killer.over.set()
        killer.join()
    tally.runs += 1


def injected(tallies: dict[str, Tally]) -> int:
    return sum(tally.killed + tally.stopped + tally.groups for tally in tallies.values())


def percentile(values: list[float], share: float) -> float:
    ordered = sorted(values) or [0.0]
    return ordered[round(share * (len(ordered) - 1))]


def table(tallies: dict[str, Tally]) -> Table:
    shown = Table("run", "runs", "SIGKILL", "group killed", "SIGSTOP", "lost", "differed", "down p50 s", "p95 s", box=None)
    for name, one in tallies.items():
        numbers = (one.runs, one.killed, one.groups, one.stopped, one.lost, one.differed)
        shown.add_row(name, *map(str, numbers), *(f"{percentile(one.down, share):.2f}" for share in (0.5, 0.95)))
    return shown


def _sum(before: dict[str, Tally], found: dict[str, Tally]) -> dict[str, Tally]:
    both = dict(before)
    for name, one in found.items():
        old = before.get(name, Tally())
        both[name] = Tally(**{key: getattr(old, key) + value for key, value in vars(one).items()})
    return both


def _write(path: Path, done: dict[str, Tally]) -> dict[str, float]:
    down = [value for one in done.values() for value in one.down]
    total = {
        "injected": injected(done), "runs": sum(one.runs for one in done.values()), "lost": sum(one.lost for one in done.values()),
        "differed": sum(one.differed for one in done.values()), "down_p50": percentile(down, 0.5), "down_p95": percentile(down, 0.95),
    }  # fmt: skip
    path.write_text(json.dumps({"total": total, "runs": {name: vars(one) for name, one in done.items()}}, indent=2) + "\n")
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=540.0)
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--fresh", action="store_true", help="do not add to earlier slices")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    path = ROOT / ".autoglm" / "bench" / "chaos-train.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    before = {} if asked.fresh or not path.exists() else json.loads(path.read_text(encoding="utf-8"))["runs"]
    done = {name: Tally(**one) for name, one in before.items()}
    start = injected(done)

    def keep(found: dict[str, Tally]) -> None:
        _write(path, _sum(done, found))

    with tempfile.TemporaryDirectory(prefix="autoglm-chaos-") as place:
        found = campaign(asked.kills - start, asked.seconds, asked.steps, 1000 + start, Path(place), keep)
    done = _sum(done, found)
    total = _write(path, done)
    console = Console(highlight=False)
    console.print(table(done))
    console.print(total)
    sys.exit(bool(total["lost"] or total["differed"]))


if __name__ == "__main__":
    main()
