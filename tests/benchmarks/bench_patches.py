"""What the loop's patches are worth: the same nights studied and retrained with them and without, 20 seeds.

    python tests/benchmarks/bench_patches.py                  # works for --seconds, keeps what it has, prints what is complete
    python tests/benchmarks/bench_patches.py --seconds 0      # only prints

The stream is the bundled days. A champion of day 2 (TF-IDF stands in: only its answers are needed) meets each following day; the real
signals of that day go through the real compiler, under the limits of params.yaml, and the patches in force on a night are those the loop
would have. Then both arms do what a night does: a real study of `--trials` trials over the (patched or unpatched) space, and a training
of its winner with the (patched or unpatched) settings, on everything up to that night. A seed decides weights, batches and sampler, and is
the same for both arms. Scored is macro-F1 on the next day's texts; the interval is a 95 % bootstrap over seeds of the mean over nights.
`off, as long` is the second control: no patch, but `train.epochs` as the patches left it, so that both train equally many steps.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import bench_loop
import numpy as np
import torch
from loop_world import BENCH, ROOT, Tokens, World, code, tokens
from rich.console import Console
from rich.table import Table as Printed

from autoglm_ops.contracts.feedback import PatchSet
from autoglm_ops.contracts.record import digest_of, write_text
from autoglm_ops.contracts.release import Champion
from autoglm_ops.feedback.history import in_force
from autoglm_ops.settings import Settings, load, resolve
from autoglm_ops.stages import loop, replay, tune
from autoglm_ops.training.models import ModelSpec, build
from autoglm_ops.training.plain import PlainEngine
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.rows import fit, score
from autoglm_ops.training.settings import overlay
from autoglm_ops.training.trials import Trials
from autoglm_ops.tuning import strategies, study
from autoglm_ops.tuning.space import parse_space

ARMS = ("on", "off", "off, as long")
RESAMPLES = 10_000
SMALL = ("model.name=glm-tiny", "tune.trials=4", "tune.steps=40", "train.evaluations=2")


def patches_of(settings: Settings, night: int) -> PatchSet:
    """What is in force on `night` after the real compiler heard every day since the first champion."""
    world = World(settings, "tfidf")
    first = bench_loop.FIRST
    answers = bench_loop.trained(world, first)
    ref, until = bench_loop._ref(first), bench_loop._day(world, first)
    champion = Champion(model=ref, data_until=until, metric=bench_loop._promise(world, first, answers))
    found: list[Any] = []
    for day in range(first + 1, night + 1):
        today = date.fromisoformat(bench_loop._day(world, day))
        said = bench_loop._signals(world, day, first, champion, answers)
        found += loop.decide(settings, said.signals, in_force(found, today), today).patches
    return in_force(found, date.fromisoformat(bench_loop._day(world, night)))


def arm_of(settings: Settings, patches: PatchSet, arm: str) -> tuple[Settings, dict[str, Any]]:
    """The settings an arm trains with, and the space it searches."""
    tree = settings.model_dump(mode="json")
    if arm == "off":
        return settings, settings.tune.space
    loop.apply_fixed(tree, {}, patches)
    patched = resolve(tree)
    if arm == "on":
        return patched, tune._patched(settings, patches)[0]
    return resolve(overlay(settings.model_dump(mode="json"), {"train.epochs": patched.train.epochs})), settings.tune.space


def night_of(settings: Settings, raw: Mapping[str, Any], night: int, seed: int) -> dict[str, Any]:
    """One night of one arm: the study, the training of its winner, its score on the next day."""
    settings = settings.model_copy(update={"seed": seed})
    world = World(settings, "glm")
    found = tokens(world, night)
    report = searched(settings, raw, found)
    tuned = resolve(overlay(settings.model_dump(mode="json"), report.best))
    recipe = Recipe.of(tuned.train.model_dump(), rows=len(found.rows.train), seed=seed)
    engine = PlainEngine(build(ModelSpec.of(tuned.model.model_dump(), found.meta, ROOT), seed), recipe)
    engine._module.load_state_dict(fit(engine, found.rows, recipe).best)
    places = np.array(world.of_day(night + 1))
    given = score(engine, found.everything.take(places), found.rows.pad_id, found.rows.labels).argmax(1)
    value = replay.macro_f1([world.labels[place] for place in places], [world.classes[one] for one in given])
    return {"f1": value, "steps": recipe.steps, "trial_steps": len(report.trials) * settings.tune.steps, "best": report.best}


def searched(settings: Settings, raw: Mapping[str, Any], found: Tokens) -> Any:
    """The real study, as the stage `tune` runs it."""
    space, rungs = parse_space(dict(raw)), tune.rungs_of(settings)
    own = ModelSpec.of(settings.model.model_dump(), found.meta, ROOT).overrides
    dump = settings.model_dump(mode="json")
    values = {f"{part}.{key}": value for part in ("train", "model") for key, value in dump[part].items()}
    values |= {f"model.{key}": value for key, value in own.items()}
    default = {dimension.key: values[dimension.key] for dimension in space.dimensions}

    def prepare(choices: Mapping[str, Any], count: int) -> tuple[Any, Recipe]:
        changed = resolve(overlay(dump, choices))
        recipe = Recipe.of(changed.train.model_dump(), rows=count, seed=settings.seed, steps=settings.tune.steps)
        module = build(ModelSpec.of(changed.model.model_dump(), found.meta, ROOT), settings.seed)
        return module, recipe.model_copy(update={"report": rungs})

    strategy = strategies.make(settings.tune.strategy, space, rungs, seed=settings.seed, first=(default,))
    with tempfile.TemporaryDirectory() as folder:
        trials = Trials(Path(folder) / "trials", (found.rows,), prepare)
        budget = tune.budget_of(settings, "bench")
        return study.run(study.Session(space, default, strategy, budget, study.Place(folder=Path(folder))), trials, budget)


def cells_of(settings: Settings, arms: Sequence[str], nights: list[int], seeds: int, seconds: float) -> dict[str, Any]:
    """Fill missing cells, seed by seed, while `seconds` last; one that was begun is finished."""
    key = {
        "settings": {name: settings.model_dump(mode="json")[name] for name in ("train", "tune", "model", "prepare", "tokenize")}
    }
    key |= {"feedback": settings.feedback.model_dump(), "code": code("data/tokenizer.py", "training", "tuning", "feedback")}
    path, stop = BENCH / "patches" / f"{digest_of(key)[:16]}.json", time.monotonic() + seconds
    cells: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    active = {night: patches_of(settings, night) for night in nights}
    cells["patches"] = {str(night): [f"{one.key}: {one.old} -> {one.new}" for one in active[night].patches] for night in nights}
    for seed in range(seeds):
        for night in nights:
            for arm in arms:
                name = f"{arm}/{night}/{seed}"
                if name not in cells and time.monotonic() < stop:
                    cells[name] = night_of(*arm_of(settings, active[night], arm), night, seed)
                    write_text(path, json.dumps(cells, indent=0, sort_keys=True) + "\n")
    return cells


def compared(cells: dict[str, Any], arms: Sequence[str], nights: list[int], seeds: int) -> dict[str, Any]:
    """Gain of `on` over the others, paired by seed, with a 95 % bootstrap interval over the seeds."""
    whole = [
        seed for seed in range(seeds) if all(f"{arm}/{night}/{seed}" in cells for arm in arms for night in nights)
    ]  # fmt: skip
    random = np.random.default_rng(0)
    found: dict[str, Any] = {"seeds": len(whole), "patches": cells["patches"]}
    if not whole:
        return found
    means = {
        arm: np.array([[cells[f"{arm}/{night}/{seed}"]["f1"] for night in nights] for seed in whole]).mean(1) for arm in arms
    }
    for arm in arms:
        steps = float(np.mean([cells[f"{arm}/{night}/{seed}"]["steps"] for night in nights for seed in whole]))
        gain = means["on"] - means[arm]
        drawn = gain[random.integers(len(gain), size=(RESAMPLES, len(gain)))].mean(1)
        low, high = (float(value) for value in np.quantile(drawn, [0.025, 0.975]))
        found[arm] = {"f1": float(means[arm].mean()), "steps": steps, "gain": float(gain.mean()), "low": low, "high": high}
    return found


def show(result: dict[str, Any], arms: Sequence[str], nights: list[int]) -> None:
    console = Console()
    for night, patches in result["patches"].items():
        console.print(f"in force on night {night}:", *(patches or ["nothing"]), sep="\n  ")
    if not result["seeds"]:
        console.print("no seed is complete yet; call again to go on")
        return
    printed = Printed(
        "patches", "macro-F1 on the next day", "gain of patches", "95 % interval", "steps of the training", box=None
    )
    for arm in arms:
        one = result[arm]
        gain = ("", "") if arm == "on" else (f"{one['gain']:+.4f}", f"{one['low']:+.4f} to {one['high']:+.4f}")
        printed.add_row(arm, f"{one['f1']:.4f}", *gain, f"{one['steps']:.0f}")
    console.print(printed, f"{result['seeds']} seeds, nights {', '.join(map(str, nights))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--set", action="append", default=list(SMALL), help="a setting, as in `autoglm run --set`")
    parser.add_argument("--nights", type=int, nargs="+", default=[5, 7])
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS, help="on is what the others are held against")
    parser.add_argument("--seconds", type=float, default=420, help="begin no night after so many; call again to go on")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    settings = load(ROOT / "params.yaml", environ={}, overrides=asked.set)
    arms = list(dict.fromkeys(("on", *asked.arms)))
    cells = cells_of(settings, arms, asked.nights, asked.seeds, asked.seconds)
    result = compared(cells, arms, asked.nights, asked.seeds)
    show(result, arms, asked.nights)
    write_text(BENCH / "patches.json", json.dumps({"set": asked.set, "nights": asked.nights, **result}, indent=1) + "\n")


if __name__ == "__main__":
    main()
