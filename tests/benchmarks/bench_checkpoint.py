"""What training waits for a checkpoint, beside torch.save and torch DCP async of the same state; and how long ranks take to start again.

    python tests/benchmarks/bench_checkpoint.py --mb 200 --rounds 15      # or: make bench-checkpoint

Stall: a model and its Adam moments of `--mb` megabytes in all. torch.save writes a file and is done when the page cache has it, without
a sync; ours is what training waits before it goes on, and again before its next update, 0.2 s of arithmetic later, for what is left of the
copy. Writing, syncing and publishing are a thread's. DCP's async_save waits until it has staged the state, and writes in a thread too;
each checkpoint of either is let finish before the next. They take turns, each on a file of its own.

Gate: two DeepSpeed ranks with a checkpoint at every step, one of them killed, give the unbroken run's model byte for byte. Start: two DeepSpeed ranks of a small GLM, cold (a new group process) and warm (forked from it again). Prints ratios with a 95 %
bootstrap interval; leaves .autoglm/bench/checkpoint.json.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from chaos_train import digests, job_of, tokens
from rich.console import Console
from rich.table import Table

from autoglm_ops.contracts.training import RecoveryRules
from autoglm_ops.training import checkpoint, publication, supervisor
from autoglm_ops.training.callbacks.checkpoints import Checkpoints
from autoglm_ops.training.kept import newest_step
from autoglm_ops.training.progress import Progress, Weights
from autoglm_ops.training.warm import WarmGroup

ROOT = Path(__file__).parents[2]
PASS = 0.2
"""Seconds of arithmetic between a checkpoint and the next update: less than a forward and backward pass over ten million weights takes here."""
TENSORS = 60
"""As many as a small transformer has."""


class Engine:
    """Weights and moments in `TENSORS` parameters."""

    rank, ranks, accumulation, resumable = 0, 1, 1, True

    def __init__(self, mb: int) -> None:
        size = mb * 1_000_000 // (TENSORS * 3 * 4)
        kinds = ("master", "exp_avg", "exp_avg_sq")
        self.before_update: Callable[[], None] = lambda: None
        self._state = {f"{kind}@0:layers.{n}.weight": torch.rand(size) for n in range(TENSORS) for kind in kinds}

    def live(self) -> Weights:
        return self._state


def stalls(mb: int, rounds: int, place: Path) -> dict[str, list[float]]:
    """Seconds of each save, in turns. The first of both is a warm-up and left out."""
    engine = Engine(mb)
    callback = Checkpoints(place / "ours", "run", engine)  # type: ignore[arg-type]
    found: dict[str, list[float]] = {"ours": [], "torch.save": [], "torch DCP async": [], "ours, until published": []}
    callback.on_start(Progress())
    for step in range(1, rounds + 2):
        clock = time.perf_counter()
        callback.on_validation(Progress(step=step, steps=1 << 30))
        waited = time.perf_counter() - clock
        _pass(clock + PASS)
        before = time.perf_counter()
        engine.before_update()
        waited += time.perf_counter() - before
        callback.on_end(Progress())
        whole = time.perf_counter() - clock
        clock = time.perf_counter()
        torch.save(engine.live(), place / "theirs.pt")
        theirs = time.perf_counter() - clock
        staged = _dcp(engine.live(), place / f"dcp-{step}")
        if step > 1:
            for name, value in zip(found, (waited, theirs, staged, whole), strict=True):
                found[name].append(value)
    assert callback.failed == 0 and checkpoint.newest(place / "ours", "run") is not None
    assert publication.KEEP == 2
    return found


def _dcp(state: Weights, folder: Path) -> float:
    """Seconds until torch's distributed checkpoint lets training go on; it is written when this returns."""
    from torch.distributed import checkpoint as dcp

    clock = time.perf_counter()
    future = dcp.async_save(state, checkpoint_id=str(folder), no_dist=True)
    waited = time.perf_counter() - clock
    _pass(clock + PASS)
    future.result()  # type: ignore[union-attr]
    shutil.rmtree(folder)
    return waited


def identical(place: Path) -> bool:
    """Whether a run that saves at every step and loses a rank gives the unbroken run's model and record."""
    data = place / "tokens"
    rules = RecoveryRules(checkpoint_steps=1, backoff_seconds=0.0)
    with WarmGroup(job_of(place / "none", data, 1, "fp32", 12)) as group:
        calm = job_of(place / "calm", data, 1, "fp32", 12)
        supervisor.train(calm, Path(calm.out), RecoveryRules(checkpoint_steps=None, checkpoint_seconds=None), group)
        job = job_of(place / "killed", data, 1, "fp32", 12).model_copy(update={"rules": rules})
        killer = threading.Thread(target=_kill_one, args=(group, Path(job.scratch)))
        killer.start()
        trail = supervisor.train(job, Path(job.out), group=group)
        killer.join()
    return trail.restarts > 0 and digests(job) == digests(calm)


def _kill_one(group: WarmGroup, scratch: Path) -> None:
    while newest_step(scratch) < 2:
        time.sleep(0.005)
    os.kill(group.pids[1], signal.SIGKILL)


def _pass(until: float) -> None:
    """Arithmetic, as a forward and backward pass."""
    matrix = torch.rand(256, 256)
    while time.perf_counter() < until:
        matrix = (matrix @ matrix).clamp(0, 1)


def starts(rounds: int, place: Path) -> dict[str, list[float]]:
    """Seconds from the order to the first step, per rank 0: the first of a group's process, and those forked from it again."""
    data = place / "tokens"
    data.mkdir()
    tokens(data)
    found: dict[str, list[float]] = {"cold": [], "warm": []}
    for number in range(max(1, rounds // 3)):
        with WarmGroup(job_of(place / "none", data, 1, "fp32", 4)) as group:
            for attempt in range(1, 5):
                job = job_of(place / f"run-{number}-{attempt}", data, 1, "fp32", 4).model_copy(update={"attempt": attempt})
                supervisor.train(job, Path(job.out), RecoveryRules(restarts=0), group)
                told = json.loads((Path(job.out) / "measured.json").read_text())
                seconds = told["start_seconds"] + told["build_seconds"]
                found["cold" if attempt == 1 else "warm"].append(seconds)
    return found


def interval(left: list[float], right: list[float]) -> tuple[float, float, float]:
    """median(left) / median(right), and its 95 % bootstrap interval."""
    chance = np.random.default_rng(0)
    drawn = [np.median(chance.choice(left, len(left))) / np.median(chance.choice(right, len(right))) for _ in range(4000)]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return statistics.median(left) / statistics.median(right), float(low), float(high)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mb", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=15)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    logging.disable(logging.WARNING)
    os.environ.setdefault("AUTOGLM_LOG_LEVEL", "ERROR")  # the ranks'
    with tempfile.TemporaryDirectory(prefix="autoglm-bench-") as place:
        waited = stalls(asked.mb, asked.rounds, Path(place))
        begun = starts(asked.rounds, Path(place))
        same = identical(Path(place))
    record: dict[str, Any] = {
        "mb": asked.mb,
        "stall_seconds": waited,
        "stall_ratio": interval(waited["torch.save"], waited["ours"]),
        "stall_ratio_dcp": interval(waited["torch DCP async"], waited["ours"]),
        "identical": same,
        "start_seconds": begun,
        "start_ratio": interval(begun["cold"], begun["warm"]),
    }
    table = Table("", "median s", "slowest s", box=None)
    for name, values in {**waited, **{f"start, {name}": values for name, values in begun.items()}}.items():
        table.add_row(name, f"{statistics.median(values):.4f}", f"{max(values):.4f}")
    console = Console(highlight=False)
    console.print(f"a checkpoint of {asked.mb} MB, {asked.rounds} rounds; two ranks to their first step")
    console.print(table)
    for name, (ratio, low, high) in (
        ("stall, of torch.save", record["stall_ratio"]),
        ("stall, of torch DCP async", record["stall_ratio_dcp"]),
        ("start, of a cold one", record["start_ratio"]),
    ):
        console.print(f"{name}: {ratio:.1f} times less (95 % {low:.1f} to {high:.1f})")
    console.print(f"saved at every step and killed, the model is the unbroken run's: {same}")
    path = ROOT / ".autoglm" / "bench" / "checkpoint.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    sys.exit(not same)


if __name__ == "__main__":
    main()
