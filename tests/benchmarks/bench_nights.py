"""A model a night, judged on the next day: what the loop trains beside params.yaml, a newcomer's configuration and TF-IDF, three seeds.

    python tests/benchmarks/bench_nights.py                  # works for --seconds, keeps what it has, prints what is complete
    python tests/benchmarks/bench_nights.py --seconds 0      # only prints

Each night's model is trained on everything up to it and answers the next day's texts, days 9 to 14. The loop's: params.yaml with the
half-life that drift switches on, and with a teacher. The newcomer's: the same tokens, two layers of 128, and what transformers'
TrainingArguments have when nothing is said (AdamW at 5e-5 without decay, linear, three epochs of batches of eight). TF-IDF with logistic
regression learns the same rows, and in another row with the loop's weights. Answers are bench_loop.py's and kept like its own.
The gain over another is the mean over days and seeds of the difference of macro-F1; its 95 % interval resamples each day's rows, the
same ones for both, and the seeds.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from functools import cache
from multiprocessing import get_context

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import bench_loop
import numpy as np
import torch
from bench_loop import Codes
from loop_world import BENCH, ROOT, World
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from autoglm_ops.contracts.record import write_text
from autoglm_ops.evaluation.metrics import Tally, macro_f1
from autoglm_ops.settings import load

RESAMPLES = 2_000
AUTO = ("prepare.half_life_days=auto",)
OURS, TFIDF = "the loop's", "TF-IDF"
CONFIGURATIONS: dict[str, tuple[str, ...]] = {
    TFIDF: (),
    f"{TFIDF}, the loop's half-life": AUTO,
    OURS: (
        *AUTO,
        "tokenize.teacher=tfidf",
        "train.teacher=0.7",
        "prepare.augment.copies=2",
        "prepare.augment.operations=[crop]",
    ),
    "TrainingArguments' defaults": (
        "model.hidden_size=128",
        "model.layers=2",
        "train.learning_rate=5.0e-5",
        "train.batch_size=8",
        "train.epochs=3",
        "train.weight_decay=0",
        "train.warmup_share=0",
        "train.schedule=linear",
        "train.token_dropout=0",
        "train.average=0",
    ),
    "params.yaml": (),
}


@cache
def world_of(name: str, seed: int) -> World:
    sets = (*CONFIGURATIONS[name], f"seed={seed}")
    return World(load(ROOT / "params.yaml", environ={}, overrides=sets), "tfidf" if name.startswith(TFIDF) else "glm")


def seeds_of(name: str, seeds: int) -> range:
    """TF-IDF draws nothing."""
    return range(1 if name.startswith(TFIDF) else seeds)


def answered(name: str, seed: int, night: int) -> Codes:
    """The answers [n] to every bundled text, trained now if they are not kept."""
    torch.set_num_threads(1)
    return bench_loop.trained(world_of(name, seed), night)


def kept(name: str, seed: int, night: int) -> Codes | None:
    path = bench_loop.place(world_of(name, seed), night)
    return np.asarray(np.load(path)) if path.exists() else None


def work(cells: list[tuple[str, int, int]], seconds: float, workers: int) -> None:
    """Train what is missing, in order, `workers` at once, and begin none after `seconds`."""
    stop, waiting = time.monotonic() + seconds, list[Future[Codes]]()
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for cell in cells:
            if kept(*cell) is None:
                while sum(not one.done() for one in waiting) >= workers:
                    time.sleep(0.2)
                if time.monotonic() >= stop:
                    break
                waiting.append(pool.submit(answered, *cell))
    for one in waiting:
        one.result()


def values(truth: Codes, given: Codes, drawn: NDArray[np.float64]) -> NDArray[np.float64]:
    """Macro-F1 [resamples] of answers [n] under how often each row was drawn [resamples, n]."""
    labels = range(int(max(truth.max(), given.max())) + 1)
    actual, predicted = (np.stack([codes == label for label in labels], -1) for codes in (truth, given))  # [n, labels]
    return macro_f1(Tally(*(drawn @ cells for cells in (actual & predicted, actual, predicted))))


def compared(seeds: int, nights: list[int]) -> Iterator[dict[str, object]]:
    """Each configuration that is complete for a seed at least: its mean macro-F1, and the gain of the loop's over it."""
    world, random = world_of(TFIDF, 0), np.random.default_rng(0)
    chosen = np.concatenate([np.arange(seeds)[None], random.integers(seeds, size=(RESAMPLES, seeds))])  # row 0: as it was
    drawn, truths = [], []
    for night in nights:
        places = world.of_day(night + 1)
        rows = len(places)
        drawn.append(np.concatenate([np.ones((1, rows)), random.multinomial(rows, [1 / rows] * rows, RESAMPLES)]).astype(float))
        truths.append((np.array(places), np.array([world.classes.index(world.labels[place]) for place in places])))
    means = {}
    for name in (OURS, *CONFIGURATIONS):
        by_seed = []
        for seed in seeds_of(name, seeds):
            answers = [kept(name, seed, night) for night in nights]
            if all(one is not None for one in answers):
                days = zip(truths, answers, drawn, strict=True)
                by_seed.append(np.mean([values(truth, one[places], times) for (places, truth), one, times in days], 0))
        if by_seed:
            means[name] = np.stack(by_seed).T[np.arange(len(chosen))[:, None], chosen % len(by_seed)].mean(1), len(by_seed)
    for name, (value, count) in means.items():
        gain = means[OURS][0] - value if OURS in means else np.full(len(value), np.nan)
        low, high = np.quantile(gain[1:], [0.025, 0.975])
        yield {"name": name, "seeds": count, "f1": value[0], "gain": gain[0], "low": low, "high": high}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--nights", type=int, nargs="+", default=[8, 9, 10, 11, 12, 13])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=420, help="begin no training after so many; call again to go on")
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)), help="trainings at once, a thread each")
    asked = parser.parse_args()
    cells = [(name, seed, night) for name in CONFIGURATIONS for seed in seeds_of(name, asked.seeds) for night in asked.nights]
    work(cells, asked.seconds, asked.workers)
    missing = sum(kept(*cell) is None for cell in cells)
    lines, console = list(compared(asked.seeds, asked.nights)), Console()
    title = f"macro-F1, days {asked.nights[0] + 1} to {asked.nights[-1] + 1}"
    table = Table("model", "seeds", title, f"{OURS} over it", "95 %", box=None)
    for line in lines:
        gain = ("", "") if line["name"] == OURS else (f"{line['gain']:+.4f}", f"{line['low']:+.4f} to {line['high']:+.4f}")
        table.add_row(str(line["name"]), f"{line['seeds']}", f"{line['f1']:.4f}", *gain)
    console.print(table, f"{missing} trainings are missing: call again to go on" if missing else "")
    write_text(
        BENCH / "nights.json", json.dumps({"seeds": asked.seeds, "nights": asked.nights, "models": lines}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
