"""Goodput of a supervised training that loses a rank to SIGKILL once a minute: seconds of steps that count / seconds that went by.

    python tests/benchmarks/bench_goodput.py --minutes 10      # or: make bench-goodput MINUTES=10

Two DeepSpeed ranks (ZeRO 1, gloo) train a GLM of 2.9 M parameters under the platform's default recovery rules, for as many steps as fill
`--minutes` without a fault. In each period of `--every` seconds one rank, drawn evenly, is killed at a moment drawn evenly. The clock runs
from the order to the end: imports, restarts, checkpoints, evaluations and every step that is done twice are losses. What one kill costs:
from it to the first step of the next attempt, and the steps between the checkpoint gone back to and the kill. `--unbroken` trains the same
once more without kills and compares the models byte for byte. Leaves .autoglm/bench/goodput.json; ends with 1 when a byte differs.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from chaos_train import ROOT, digests, job_of, percentile, tokens
from rich.console import Console

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.contracts.record import write_text
from autoglm_ops.contracts.training import RecoveryRules
from autoglm_ops.training import supervisor
from autoglm_ops.training.beat import read
from autoglm_ops.training.job import Job
from autoglm_ops.training.kept import newest_step
from autoglm_ops.training.models import ModelSpec
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.warm import WarmGroup

GOAL = 0.9
MODEL = {"name": "glm-tiny", "hidden_size": 256, "layers": 4, "heads": 8, "dropout": None}
BUCKETS = {"reduce_bucket_size": 3_000_000, "allgather_bucket_size": 3_000_000}
"""One bucket holds the model, as the planner would have it."""
TRIED = 20
"""Steps by which a step is timed."""


class Killer(threading.Thread):
    """Kills one rank in each period of `every` seconds, `kills` in all. `lost` are (seconds until steps go on, steps to do again)."""

    def __init__(self, group: WarmGroup, job: Job, every: float, kills: int, seed: int) -> None:
        super().__init__(daemon=True)
        self._group, self._job, self._every, self._kills = group, job, every, kills
        self._chance = random.Random(seed)
        self.lost: list[tuple[float, int]] = []
        self.over = threading.Event()

    def run(self) -> None:
        begun = time.monotonic()
        for number in range(self._kills):
            moment = begun + (number + self._chance.random()) * self._every
            while not self.over.wait(0.05) and (time.monotonic() < moment or not self._training()):
                pass
            if self.over.is_set():
                return
            self._kill()

    def _training(self) -> bool:
        beats = read(Path(self._job.out))
        return {beat.pid for beat in beats if beat.phase == "training"} == set(self._group.pids.values()) != set()

    def _kill(self) -> None:
        before = read(Path(self._job.out))
        step, attempt = max(beat.step for beat in before), before[0].attempt
        os.kill(self._chance.choice(list(self._group.pids.values())), signal.SIGKILL)
        since = time.monotonic()
        while not self.over.wait(0.01):
            beats = [beat for beat in read(Path(self._job.out)) if beat.attempt > attempt and beat.phase == "training"]
            if beats:
                self.lost.append((min(beat.monotonic for beat in beats) - since, max(0, step - beats[0].resumed)))
                return


def job_in(place: Path, name: str, steps: int) -> Job:
    """The run `name` in `place`, with the rules that the platform ships."""
    data = place / "tokens"
    job = job_of(place / name, data, 1, "fp32", steps, buckets=BUCKETS)
    meta = TokenMeta.read(data / "meta.json")
    model = ModelSpec.of(MODEL, meta, data)
    recipe = Recipe.of(job.settings | {"evaluations": 2}, rows=meta.rows["train"], seed=5, steps=steps)
    return job.model_copy(update={"model": model, "recipe": recipe, "rules": RecoveryRules()})


def trained(job: Job) -> tuple[dict[str, Any], float]:
    """(measured.json, wall seconds) of a calm run."""
    began = time.monotonic()
    supervisor.train(job, Path(job.out))
    return json.loads((Path(job.out) / "measured.json").read_text(encoding="utf-8")), time.monotonic() - began


def disturbed(job: Job, minutes: float, every: float, seed: int) -> dict[str, Any]:
    """Train `job` to its end under kills: what it took."""
    began = time.monotonic()
    with WarmGroup(job) as group:
        killer = Killer(group, job, every, max(1, round(minutes * 60 / every)), seed)
        killer.start()
        trail = supervisor.train(job, Path(job.out), group=group)
        killer.over.set()
        killer.join()
    wall = time.monotonic() - began
    measured = json.loads((Path(job.out) / "measured.json").read_text(encoding="utf-8"))
    useful = measured["kept_step_seconds"]
    step = useful / job.recipe.steps
    lost = [down + steps * step for down, steps in killer.lost]
    return {
        "steps": job.recipe.steps, "step_seconds": step, "wall_seconds": wall, "useful_seconds": useful, "goodput": useful / wall,
        "kills": trail.restarts, "down_seconds": [down for down, _ in killer.lost], "steps_redone": [steps for _, steps in killer.lost],
        "lost_seconds": lost, "lost_p50": percentile(lost, 0.5), "lost_p95": percentile(lost, 0.95), "newest_kept": newest_step(Path(job.scratch)),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--every", type=float, default=60.0, help="seconds in which one kill falls")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--unbroken", action="store_true", help="train once more without kills and compare the models")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    os.environ.setdefault("AUTOGLM_LOG_LEVEL", "ERROR")  # the ranks'
    with tempfile.TemporaryDirectory(prefix="autoglm-goodput-") as folder:
        place = Path(folder)
        (place / "tokens").mkdir()
        tokens(place / "tokens")
        tried, _ = trained(job_in(place, "tried", TRIED))
        steps = max(TRIED, round(asked.minutes * 60 / (tried["step_seconds"] / TRIED)))
        job = job_in(place, "killed", steps)
        record = disturbed(job, asked.minutes, asked.every, asked.seed)
        if asked.unbroken:
            calm = job_in(place, "calm", steps)
            record["unbroken_wall_seconds"] = trained(calm)[1]
            record["identical"] = digests(calm) == digests(job)
    path = ROOT / ".autoglm" / "bench" / "goodput.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(record, indent=2) + "\n")
    told(record)
    sys.exit(record.get("identical") is False)


def told(record: dict[str, Any]) -> None:
    console = Console(highlight=False)
    down, redone = record["down_seconds"], [float(steps) for steps in record["steps_redone"]]
    console.print(
        f"{record['steps']} steps of {record['step_seconds']:.3f} s, {record['kills']} SIGKILLs, {record['wall_seconds']:.0f} s in all: "
        f"goodput {record['goodput']:.1%} (goal {GOAL:.0%})"
    )
    console.print(f"lost per kill: p50 {record['lost_p50']:.1f} s, p95 {record['lost_p95']:.1f} s")
    console.print(f"of it until steps go on: p50 {percentile(down, 0.5):.1f} s, p95 {percentile(down, 0.95):.1f} s")
    console.print(f"steps done again: p50 {percentile(redone, 0.5):.0f}, p95 {percentile(redone, 0.95):.0f}")
    if "identical" in record:
        console.print(
            f"the unbroken run took {record['unbroken_wall_seconds']:.0f} s; the models are the same: {record['identical']}"
        )


if __name__ == "__main__":
    main()
