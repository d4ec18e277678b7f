"""How many training steps a tuner spends until it has the quality of a hundred random trainings: ours beside Optuna's, on real curves.

    python tests/benchmarks/bench_tune.py --tables DIR --seeds 20 --minutes 9      # or: make bench-tune TABLES=DIR; again to go on

DIR holds tables of learning curves (TaskSet's text RNNs: 1,000 configurations of 8 optimiser settings, the same on every task, scored
after each of 50 units of training). A simulated clock counts new steps only: a paused trial that goes on pays its rest. The target of a
task is fixed beforehand: the median, over 500 draws, of the best final validation loss of 100 random configurations.

A cell is one task and seed. All methods search the same random half of the configurations (drawn again when none in it reaches the target);
history is the other tasks' curves of the other half, so no configuration is in both. `shuffled` deals those curves out at random,
`inverted` gives the best curve to the worst configuration. `random` is the mean of 50 orders. A method that ends without the target is
charged the whole half. Peers are told every score, propose anywhere in the space, and get the nearest configuration not tried yet.

The speed-up of a task is the ratio of mean steps over the seeds; the table gives its geometric mean over the tasks, the worst task,
and a 95 % bootstrap interval over seeds. The constants of the learning-curve model were chosen on tasks 0, 2 and 5 of the six,
in the order of their names; `judged` is the geometric mean over the other three.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np
import optuna
from rich.console import Console
from rich.table import Table as Printed
from tune_tables import Clock, Draw, Reached, Table, draw, history, pool_of, read, space_of

from autoglm_ops.contracts.record import write_text
from autoglm_ops.tuning.halving import Halving
from autoglm_ops.tuning.master import TuneMaster
from autoglm_ops.tuning.moves import Strategy
from autoglm_ops.tuning.pool import Pool
from autoglm_ops.tuning.samplers import Asked

RUNGS = (1, 2, 3, 5, 8, 12, 18, 26, 36, 50)
TUNED_ON = (0, 2, 5)
ORDERS = 50
RESAMPLES = 2000
OURS = ("cold", "history", "shuffled", "inverted")
PEERS = ("random", "halving", "tpe-median", "tpe-hyperband", "gp")


def every(table: Table) -> tuple[int, ...]:
    return tuple(range(1, table.steps + 1))


def tpe_median(table: Table, pool: Pool, seed: int) -> Strategy:
    make = lambda number: optuna.samplers.TPESampler(seed=number)  # noqa: E731
    return Asked(pool.space, every(table), seed=seed * 10_000, sampler=make, pruner=optuna.pruners.MedianPruner())


def tpe_hyperband(table: Table, pool: Pool, seed: int) -> Strategy:
    make = lambda number: optuna.samplers.TPESampler(seed=number)  # noqa: E731
    pruner = optuna.pruners.HyperbandPruner(min_resource=1, max_resource=table.steps)
    return Asked(pool.space, every(table), seed=seed * 10_000, sampler=make, pruner=pruner)


def gp(table: Table, pool: Pool, seed: int) -> Strategy:
    make = lambda number: optuna.samplers.GPSampler(seed=number)  # noqa: E731
    return Asked(pool.space, (table.steps,), seed=seed * 10_000, sampler=make)


def halving(table: Table, pool: Pool, seed: int) -> Strategy:
    make = lambda number: optuna.samplers.RandomSampler(seed=number)  # noqa: E731
    return Halving((1, 3, 9, 27, table.steps), Asked(pool.space, every(table), seed=seed * 10_000, sampler=make))


ASKED: dict[str, Callable[[Table, Pool, int], Strategy]] = {
    "halving": halving,
    "tpe-median": tpe_median,
    "tpe-hyperband": tpe_hyperband,
    "gp": gp,
}


def cell(method: str, tables: list[Table], task: int, seed: int) -> dict[str, Any]:
    table = tables[task]
    drawn = draw(table, seed * 100 + task)
    whole = len(drawn.search) * table.steps
    if method == "random":
        return {"steps": random_steps(table, drawn, seed), "found": True, "seconds": 0.0}
    began = time.process_time()
    pool = pool_of(table, drawn, space_of(table))
    if method in OURS:
        control = {"history": "true"}.get(method, method)
        earlier = [] if method == "cold" else history(tables, table, drawn.known, control, seed)
        strategy: Strategy = TuneMaster(pool, RUNGS, seed=seed, earlier=earlier)
    else:
        strategy = ASKED[method](table, pool, seed)
    reached: Reached = Clock(table, drawn, pool, whole).run(strategy)
    seconds = round(time.process_time() - began, 2)
    return {
        "steps": reached.steps if reached.found else whole,
        "found": reached.found,
        "started": reached.started,
        "seconds": seconds,
    }


def random_steps(table: Table, drawn: Draw, seed: int) -> float:
    """Mean steps of random search over orders of the half."""
    hit = table.loss[drawn.search, 1:] <= table.target
    first = np.where(hit.any(1), hit.argmax(1) + 1, 0)
    random = np.random.default_rng((seed, 5))
    costs = []
    for _ in range(ORDERS):
        order = first[random.permutation(len(first))]
        before = int(np.flatnonzero(order)[0])
        costs.append(before * table.steps + order[before])
    return float(np.mean(costs))


def measure(path: Path, tables: list[Table], methods: list[str], seeds: int, minutes: float) -> dict[str, Any]:
    """Fill the missing cells, seed by seed, and keep them as they come; stops after `minutes`."""
    cells: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    stop = time.monotonic() + minutes * 60
    for seed in range(seeds):
        for task in range(len(tables)):
            for method in methods:
                name = f"{method}/{tables[task].name}/{seed}"
                if name in cells:
                    continue
                if time.monotonic() > stop:
                    return cells
                cells[name] = cell(method, tables, task, seed)
                write_text(path, json.dumps(cells, indent=0, sort_keys=True) + "\n")
    return cells


def steps_of(cells: dict[str, Any], tables: list[Table], method: str, seeds: list[int]) -> np.ndarray:
    """[tasks, seeds]"""
    return np.array([[cells[f"{method}/{table.name}/{seed}"]["steps"] for seed in seeds] for table in tables], dtype=float)


def compare(cells: dict[str, Any], tables: list[Table], method: str, peer: str, seeds: list[int]) -> dict[str, float]:
    """How many times fewer steps `method` takes than `peer`."""
    ours, theirs = steps_of(cells, tables, method, seeds), steps_of(cells, tables, peer, seeds)
    ratios = theirs.mean(1) / ours.mean(1)
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        part = random.integers(len(seeds), size=len(seeds))
        drawn.append(float(np.exp(np.log(theirs[:, part].mean(1) / ours[:, part].mean(1)).mean())))
    judged = [place for place in range(len(tables)) if place not in TUNED_ON]
    return {
        "geometric_mean": float(np.exp(np.log(ratios).mean())),
        "worst_task": float(ratios.min()),
        "low": float(np.quantile(drawn, 0.025)),
        "high": float(np.quantile(drawn, 0.975)),
        "judged": float(np.exp(np.log(ratios[judged]).mean())) if judged else float("nan"),
        "seeds": len(seeds),
    }


def done_seeds(cells: dict[str, Any], tables: list[Table], methods: tuple[str, ...], seeds: int) -> list[int]:
    return [
        seed for seed in range(seeds) if all(f"{method}/{table.name}/{seed}" in cells for method in methods for table in tables)
    ]


def show(cells: dict[str, Any], tables: list[Table], seeds: int) -> dict[str, Any]:
    printed = Printed(title="times fewer steps to the target")
    for column in ("method", "against", "geometric mean", "95 % interval", "worst task", "judged", "seeds"):
        printed.add_column(column)
    result: dict[str, Any] = {}
    for method, peers in (
        [(one, PEERS) for one in OURS[:2]]
        + [("shuffled", ("cold", "random")), ("inverted", ("cold", "random"))]
        + [(peer, ("random",)) for peer in PEERS[1:]]
    ):
        for peer in peers:
            shared = done_seeds(cells, tables, (method, peer), seeds)
            if not shared:
                continue
            found = result[f"{method} against {peer}"] = compare(cells, tables, method, peer, shared)
            printed.add_row(
                method, peer, f"{found['geometric_mean']:.1f}x", f"{found['low']:.1f} to {found['high']:.1f}",
                f"{found['worst_task']:.1f}x", f"{found['judged']:.1f}x", str(found["seeds"]),
            )  # fmt: skip
    Console().print(printed)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--tables", type=Path, help="folder of *.json.gz tables; without it nothing is measured")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--minutes", type=float, default=60.0, help="stop after so many; what is measured is kept for the next call"
    )
    parser.add_argument("--methods", nargs="+", default=["random", *OURS, *PEERS[1:]], choices=[*OURS, *PEERS])
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[2] / ".autoglm" / "bench" / "tune-cells.json")
    asked = parser.parse_args()
    if asked.tables is None or not (tables := read(asked.tables)):
        Console().print("bench_tune: no tables of learning curves (--tables DIR), so there is nothing to measure")
        return
    cells = measure(asked.out, tables, asked.methods, asked.seeds, asked.minutes)
    result = show(cells, tables, asked.seeds)
    write_text(asked.out.with_name("tune.json"), json.dumps({"seeds": asked.seeds, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
