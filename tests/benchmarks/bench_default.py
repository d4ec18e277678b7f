"""Time to a target on the default dataset: our tuner beside a hand-run grid and random search, on curves that are measured once.

    python tests/benchmarks/bench_default.py                  # measures for --seconds, keeps what it has, prints what is complete
    python tests/benchmarks/bench_default.py --seconds 0      # only replays

Fixed beforehand: the grid is three decades of learning rate around TrainingArguments' own 5e-5, three of weight decay, three shares of
blanked tokens; each of the 27 configurations is trained once, whole, as `autoglm run` trains (`train.epochs` of all fourteen days), and
scored on the validation rows at 24 even looks. The target is the best score of the grid less half a point of macro-F1. Everybody searches
these 27 configurations, so nobody has better ones to find; what differs is the order and who is trained how far.

*grid* walks three nested loops, in each seed in another nesting and direction; *random* draws without repeats. Both train every
configuration whole and are stopped at the first look that reaches the target; their looks cost nothing. *ours* is TuneMaster, cold: each
look it takes costs its scoring, it is stopped only at looks it takes, and its own thinking and start-up (imports and the first model of
curves) are added in seconds. *warm* is the same on a platform's second study: it is told what a cold one of its own, on days 1 to 7, had
looked at until it met that night's target (the grid's curves are measured on those days, too); what that one took is not counted again.
A step's seconds are the median of what was measured.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import numpy as np
from loop_world import BENCH, ROOT, Tokens, World, code, tokens
from rich.console import Console
from rich.table import Table as Printed
from tune_tables import Clock, Draw, Table

from autoglm_ops.contracts.record import digest_of, write_text
from autoglm_ops.settings import Settings, load
from autoglm_ops.tuning.master import TuneMaster
from autoglm_ops.tuning.pool import Pool
from autoglm_ops.tuning.space import Dimension, Space
from autoglm_ops.tuning.transfer import Earlier

GRID = {
    "train.learning_rate": (5e-5, 5e-4, 5e-3),
    "train.weight_decay": (0.01, 0.1, 1.0),
    "train.token_dropout": (0.0, 0.15, 0.3),
}
LOOKS = 24
RUNGS = (1, 2, 3, 5, 8, 12, 18, 24)
OURS, PEERS = ("cold", "warm"), ("grid", "random")
BELOW = 0.005
"""The target, under the best of the grid."""
EARLIER = 7
"""Days of the study that the warm one has heard of."""
RESAMPLES = 10_000
SPACE = Space(
    dimensions=tuple(
        Dimension(key=key, kind="uniform" if 0.0 in values else "loguniform", low=values[0], high=values[-1])
        for key, values in GRID.items()
    )
)


def configurations() -> list[dict[str, float]]:
    return [dict(zip(GRID, values, strict=True)) for values in itertools.product(*GRID.values())]


def cell_of(settings: Settings, choices: dict[str, float], days: int) -> Path:
    key: dict[str, Any] = {
        "choices": choices,
        "looks": LOOKS,
        "train": settings.train.model_dump(),
        "model": settings.model.model_dump(),
    }
    key |= {"seed": settings.seed, "prepare": settings.prepare.model_dump(), "tokenize": settings.tokenize.model_dump()}
    key |= {"code": code("data/tokenizer.py", "training")}
    key |= {"days": days} if days != settings.data.days else {}
    return BENCH / "default" / f"{digest_of(key)[:16]}.json"


def measure(settings: Settings, choices: dict[str, float], found: Tokens) -> dict[str, Any]:
    """The curve of one configuration: macro-F1 at each look, processor seconds of its steps and of its looks."""
    import torch

    from autoglm_ops.training.callbacks.base import AfterValidation
    from autoglm_ops.training.models import ModelSpec, build
    from autoglm_ops.training.plain import PlainEngine
    from autoglm_ops.training.recipe import Recipe
    from autoglm_ops.training.rows import fit

    torch.set_num_threads(1)
    train = settings.train.model_dump() | {key.partition(".")[2]: value for key, value in choices.items()}
    recipe = Recipe.of(train | {"evaluations": LOOKS}, rows=len(found.rows.train), seed=settings.seed)
    engine = PlainEngine(build(ModelSpec.of(settings.model.model_dump(), found.meta, ROOT), settings.seed), recipe)
    started = time.process_time()
    ended = fit(engine, found.rows, recipe, callbacks=[AfterValidation(lambda progress: None)], keep=False)
    whole = time.process_time() - started
    shares = ended.seconds["evaluations"] / max(1e-9, ended.seconds["evaluations"] + ended.seconds["steps"])
    return {
        "choices": choices,
        "curve": ended.validation,
        "step_seconds": whole * (1 - shares) / recipe.steps,
        "look_seconds": whole * shares / LOOKS,
    }


def fill(settings: Settings, days: int, stop: float) -> list[dict[str, Any] | None]:
    """Measure what is missing on these days until `stop` of the clock; a configuration that was begun is finished."""
    found = None
    cells: list[dict[str, Any] | None] = []
    for choices in configurations():
        path = cell_of(settings, choices, days)
        if not path.exists() and time.monotonic() < stop:
            found = found or tokens(World(settings, "glm"), days)
            write_text(path, json.dumps(measure(settings, choices, found)) + "\n")
        cells.append(json.loads(path.read_text()) if path.exists() else None)
    return cells


def startup_seconds() -> float:
    """Processor seconds until the tuner has chosen its first configuration, of a fresh process."""
    program = (
        "import time, numpy as np; from autoglm_ops.tuning.strategies import make; from autoglm_ops.tuning.space import parse_space; "
        "from autoglm_ops.tuning.moves import View; import autoglm_ops.tuning.study; "
        "make('tunemaster', parse_space({'train.learning_rate': {'loguniform': [1e-4, 1e-2]}}), (1, 2), seed=1)"
        ".next(View(steps=2, budget=9)); print(time.process_time())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    return float(done.stdout)


def whole_trainings(order: Sequence[int], loss: np.ndarray, target: float) -> int:
    """Looks until the target when every configuration of `order` is trained whole. loss [configurations, looks + 1]."""
    spent = 0
    for row in order:
        hit = np.flatnonzero(loss[row, 1:] <= target)
        if len(hit):
            return spent + int(hit[0]) + 1
        spent += loss.shape[1] - 1
    return spent


def grid_order(seed: int) -> list[int]:
    """A person's nested loops: which loop is the outer one, and which end each begins at, is chance."""
    random = np.random.default_rng((seed, 3))
    places = np.arange(27).reshape(3, 3, 3)
    for axis in range(3):
        places = np.flip(places, axis) if random.random() < 0.5 else places
    return [int(place) for place in places.transpose(random.permutation(3)).ravel()]


def losses(cells: Sequence[dict[str, Any]]) -> tuple[np.ndarray, float]:
    """1 less macro-F1 [configurations, looks + 1], before the first look 1; and the target."""
    loss = np.array([[1.0, *(1 - score for _, score in cell["curve"])] for cell in cells])
    return loss, float(loss[:, 1:].min()) + BELOW


def replayed(cells: Sequence[dict[str, Any]], past: Sequence[dict[str, Any]], seeds: int, startup: float) -> dict[str, Any]:
    """Seconds to the target of each method and seed."""
    loss, target = losses(cells)
    steps = cells[0]["curve"][-1][0]
    unit = float(np.median([cell["step_seconds"] for cell in cells])) * steps / LOOKS
    look = float(np.median([cell["look_seconds"] for cell in cells]))
    seconds: dict[str, list[float]] = {name: [] for name in (*PEERS, *OURS)}
    told: dict[str, list[Any]] = {name: [] for name in OURS}
    for seed in range(seeds):
        seconds["grid"].append(whole_trainings(grid_order(seed), loss, target) * unit)
        order = np.random.default_rng((seed, 4)).permutation(len(loss)).tolist()
        seconds["random"].append(whole_trainings(order, loss, target) * unit)
        before = ours(past, *losses(past), seed)[0].told("the days before")
        for name, earlier in zip(OURS, ((), (before,)), strict=True):
            clock, thinking = ours(cells, loss, target, seed, earlier)
            told[name].append({"looks": clock.looks, "units": clock.spent, "thinking": thinking})
            seconds[name].append(clock.spent * unit + clock.looks * look + thinking + startup)
    best = float(1 - loss[:, 1:].min())
    reach = int((loss[:, 1:].min(1) <= target).sum())
    facts = {"best": best, "target": 1 - target, "reach_it": reach, "steps": steps, "unit_seconds": unit, "look_seconds": look}
    oracle = float((loss[:, 1:] <= target).argmax(1)[(loss[:, 1:] <= target).any(1)].min() + 1) * unit + look + startup
    return {
        **facts,
        "startup_seconds": startup,
        "oracle_seconds": oracle,
        "seconds": seconds,
        "told": told,
        "speedup": speedups(seconds),
    }


def ours(
    cells: Sequence[dict[str, Any]], loss: np.ndarray, target: float, seed: int, earlier: Sequence[Earlier] = ()
) -> tuple[Clock, float]:
    """The clock after TuneMaster reached the target, and the processor seconds it thought."""
    seen = np.full_like(loss, np.inf)
    seen[:, list(RUNGS)] = loss[:, list(RUNGS)]
    choices = [dict(cell["choices"]) for cell in cells]
    table, everyone = Table("default", choices, seen, target), np.arange(len(choices))
    pool = Pool(SPACE, choices)
    clock = Clock(table, Draw(everyone, everyone[:0]), pool, cap=loss.size)
    started = time.process_time()
    clock.run(TuneMaster(pool, RUNGS, seed=seed, earlier=earlier))
    return clock, time.process_time() - started


def speedups(seconds: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """Mean seconds of a peer over ours, with a 95 % bootstrap interval over the seeds."""
    random, found = np.random.default_rng(0), {}
    for name, peer in itertools.product(OURS, PEERS):
        own, theirs = np.array(seconds[name]), np.array(seconds[peer])
        part = random.integers(len(own), size=(RESAMPLES, len(own)))
        low, high = np.quantile(theirs[part].mean(1) / own[part].mean(1), [0.025, 0.975])
        found[f"{name} / {peer}"] = {"mean": float(theirs.mean() / own.mean()), "low": float(low), "high": float(high)}
    return found


def show(result: dict[str, Any]) -> None:
    printed = Printed("ours", "seconds", "against", "seconds", "times faster", "95 % interval", box=None)
    means = {name: f"{np.mean(seconds):.0f}" for name, seconds in result["seconds"].items()}
    for pair, found in result["speedup"].items():
        name, peer = pair.split(" / ")
        interval = f"{found['low']:.1f} to {found['high']:.1f}"
        printed.add_row(name, means[name], peer, means[peer], f"{found['mean']:.1f}x", interval)
    Console().print(
        printed,
        f"target {result['target']:.4f} (best of the grid {result['best']:.4f}), reached by {result['reach_it']} of 27; a whole training is "
        f"{result['steps']} steps, {result['unit_seconds'] * LOOKS:.0f} s; start-up {result['startup_seconds']:.1f} s is counted; who knew the quickest configuration would take {result['oracle_seconds']:.0f} s",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--set", action="append", default=[], help="a setting, as in `autoglm run --set`")
    parser.add_argument("--seconds", type=float, default=420, help="begin no configuration after so many; call again to go on")
    parser.add_argument("--seeds", type=int, default=40)
    asked = parser.parse_args()
    settings = load(ROOT / "params.yaml", environ={}, overrides=asked.set)
    stop = time.monotonic() + asked.seconds
    both = [fill(settings, days, stop) for days in (settings.data.days, EARLIER)]
    cells, past = ([cell for cell in found if cell is not None] for found in both)
    missing = sum(map(len, both)) - len(cells) - len(past)
    if missing:
        Console().print(f"bench_default: {missing} of {2 * len(both[0])} trainings are not measured yet; call again to go on")
        return
    result = replayed(cells, past, asked.seeds, startup_seconds())
    show(result)
    write_text(BENCH / "default.json", json.dumps({"set": asked.set, "grid": GRID, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
