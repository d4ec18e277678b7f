"""The loop's nights replayed offline: each night's candidate is trained once, and any gate can then be judged on its stored answers.

    python tests/benchmarks/bench_loop.py                 # candidates of TF-IDF: what the rules are worth, in minutes
    python tests/benchmarks/bench_loop.py --model glm --set train.max_steps=700 --set train.epochs=4

The same days, splits, drift, signals and gate as `autoglm demo`, without Airflow, server and study. Every model's answers to all of the
bundled texts are kept in .autoglm/bench/loop by the digest of what it was made of, so a second run, or another margin, costs seconds.
Rules: *superiority* (the gate without drift), *margin m* (the gate that knows drift), *two of five* (retrain the same job when two of
the last five windows fell under the promise, no gate), nightly without a gate, and TF-IDF every night.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import numpy as np
import torch
from loop_world import BENCH, DATA_CODE, ROOT, World, code, tokens
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from autoglm_ops.contracts.production import SignalsOfDay
from autoglm_ops.contracts.record import digest_of
from autoglm_ops.contracts.release import Champion, ModelRef, Verdict
from autoglm_ops.contracts.serving import LabelledRow
from autoglm_ops.evaluation import baseline
from autoglm_ops.evaluation.assess import Answers, Method, Sizes, assess
from autoglm_ops.evaluation.gate import GatePolicy, decide, drift_against
from autoglm_ops.feedback.signals import SignalPolicy, derive
from autoglm_ops.monitoring.drift import drift, profile
from autoglm_ops.settings import load
from autoglm_ops.stages import replay
from autoglm_ops.stages.production import measure_of
from autoglm_ops.training.initial import start
from autoglm_ops.training.models import ModelSpec, build
from autoglm_ops.training.plain import PlainEngine
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.rows import fit, score

STORE = BENCH / "loop"
FIRST = 2
Codes = NDArray[np.int64]


def place(world: World, night: int) -> Path:
    """Where a night's answers are kept, by the digest of what makes them."""
    settings, made = world.settings, code(*DATA_CODE)
    key = {
        "night": night,
        "prepare": settings.prepare.model_dump(),
        "window": settings.data.window_days,
        "seed": settings.seed,
        "data": made,
    }
    if world.model == "tfidf":
        return STORE / f"tfidf-{night:02d}-{digest_of(key)[:16]}.npy"
    key |= {"train": settings.train.model_dump(), "model": settings.model.model_dump()}
    key |= {"tokenize": settings.tokenize.model_dump(), "code": code("training")}
    return STORE / f"glm-{night:02d}-{digest_of(key)[:16]}.npy"


def trained(world: World, night: int) -> Codes:
    """The answers [n] of a night's candidate, which is trained on everything up to it."""
    path = place(world, night)
    if not path.exists():
        _save(path, _train(world, night) if world.model == "glm" else _tfidf(world, night))
    return np.asarray(np.load(path))


def _tfidf(world: World, night: int) -> Codes:
    rows = world.splits(night).samples["train"]
    given = baseline.tfidf([row.text for row in rows], [row.label for row in rows], [row.weight for row in rows], world.texts)
    return np.array([world.classes.index(label) for label in given])


def _train(world: World, night: int) -> Codes:
    settings, found = world.settings, tokens(world, night)
    recipe = Recipe.of(settings.train.model_dump(), rows=len(found.rows.train), seed=settings.seed)
    spec = ModelSpec.of(settings.model.model_dump(), found.meta, ROOT)
    module = start(build(spec, settings.seed), recipe.initial, spec, found.rows.train)
    engine = PlainEngine(module, recipe)
    module.load_state_dict(fit(engine, found.rows, recipe).best)
    return score(engine, found.everything, found.rows.pad_id, found.rows.labels).argmax(1)


def _save(path: Path, answers: Codes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, answers)


@dataclass
class Told:
    """A rule's days: macro-F1 by day, promotions by night, and those that were worse on the next day (Holm)."""

    scores: dict[int, float]
    promoted: list[int]
    worse: int
    trainings: int

    def mean(self, first: int = 5) -> float:
        return float(np.mean([value for day, value in self.scores.items() if day >= first]))


def play(world: World, margin: float | None) -> Told:
    """The loop with the gate at `margin` (0: superiority; None: two windows of five below the promise, and no gate)."""
    models, night = {FIRST: trained(world, FIRST)}, FIRST
    champion = Champion(model=_ref(FIRST), data_until=_day(world, FIRST), metric=_promise(world, FIRST, models[FIRST]))
    told, p_worse, fallen = Told({}, [], 0, 0), list[float](), list[bool]()
    for day in range(FIRST + 1, len(world.days) + 1):
        here, answers = world.of_day(day), models[night]
        told.scores[day] = _f1(world, here, answers)
        if day == len(world.days):
            break
        said = _signals(world, day, night, champion, answers)
        fallen.append(said.named("quality") is not None)
        if not (said.fired if margin is not None else sum(fallen[-5:]) >= 2):
            continue
        told.trainings += 1
        models[day] = trained(world, day)
        if margin is None or _passes(world, day, models[day], answers, champion, said, margin):
            told.promoted.append(day)
            p_worse.append(_p_worse(world, day + 1, models[day], answers))
            night, fallen = day, []
            champion = Champion(model=_ref(day), data_until=_day(world, day), metric=_promise(world, day, models[day]))
    told.worse = sum(replay.holm(p_worse))
    return told


def _passes(world: World, day: int, new: Codes, old: Codes, champion: Champion, said: SignalsOfDay, margin: float) -> bool:
    rows = world.splits(day).samples["gate"]
    chosen = [world.place[row.text] for row in rows]
    names = world.classes
    answers = Answers(
        texts=[row.text for row in rows],
        days=[row.day for row in rows],
        truth=[row.label for row in rows],
        candidate=[names[new[place]] for place in chosen],
        champion=[names[old[place]] for place in chosen],
        majority=[names[0]] * len(rows),
        tfidf=[names[new[place]] for place in chosen],
    )
    report = assess(answers, Method("macro_f1", world.settings.evaluate.resamples, world.settings.seed), Sizes(1, 1))
    policy = GatePolicy(**{**world.settings.gate.model_dump(), "margin": margin})
    verdict = decide(report, champion, policy, drift_against(champion, said, _day(world, day), policy))
    return verdict.verdict is Verdict.PROMOTE


def _signals(world: World, day: int, night: int, champion: Champion, answers: Codes) -> SignalsOfDay:
    here, limits = world.of_day(day), world.settings.monitor
    rows = [
        LabelledRow(
            id=str(place),
            text=world.texts[place],
            label=world.labels[place],
            predicted=world.classes[answers[place]],
            score=0.5,
            day=world.names[place],
            version=night,
            source="demo",
        )
        for place in here
    ]
    train = world.splits(night).samples["train"]
    reference = profile([row.text for row in train], [row.label for row in train])
    reports = drift(
        reference, profile([row.text for row in rows], [row.label for row in rows]), limits.psi, limits.kl, limits.min_rows
    )
    found = derive(
        rows,
        reports,
        version=night,
        promised=champion.metric,
        measure=measure_of(world.settings),
        policy=SignalPolicy(min_rows=limits.min_rows, quality_drop=limits.quality_drop),
    )
    fired = any(signal.fired for signal in found)
    return SignalsOfDay(day=world.names[here[0]], champion=champion, fired=fired, signals=found, drift=reports)


def _promise(world: World, night: int, answers: Codes) -> float:
    return _f1(world, [world.place[row.text] for row in world.splits(night).samples["gate"]], answers)


def _p_worse(world: World, day: int, new: Codes, old: Codes) -> float:
    here, names = world.of_day(day), world.classes
    truth = [world.labels[place] for place in here]
    return replay.against(truth, [names[new[p]] for p in here], [names[old[p]] for p in here], seed=world.settings.seed)[3]


def _f1(world: World, places: Sequence[int], answers: Codes) -> float:
    return replay.macro_f1([world.labels[place] for place in places], [world.classes[answers[place]] for place in places])


def _ref(night: int) -> ModelRef:
    return ModelRef(name="autoglm", version=night, digest=f"{night:064x}")


def _day(world: World, night: int) -> str:
    return world.days[night - 1].day.isoformat()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--set", action="append", default=[], help="a setting, as in `autoglm run --set`")
    parser.add_argument(
        "--model", choices=["glm", "tfidf"], default="glm", help="what a night trains; tfidf shows the rules in minutes"
    )
    parser.add_argument("--margins", type=float, nargs="*", default=[0.0, 0.02, 0.03, 0.05])
    parser.add_argument("--nights", type=int, nargs="*", help="train and score these nights' models only, on the next day")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    started, world = time.monotonic(), World(load(ROOT / "params.yaml", environ={}, overrides=asked.set), asked.model)
    linear, nights = World(world.settings, "tfidf"), asked.nights or range(FIRST, len(world.days))
    every = {
        night: (
            _f1(world, world.of_day(night + 1), trained(world, night)),
            _f1(world, world.of_day(night + 1), trained(linear, night)),
        )
        for night in nights
    }
    table = Table("rule", "mean macro-F1, days 5-14", "promotions", "worse next day", "trainings", box=None)
    late = [pair for night, pair in every.items() if night >= 4]
    table.add_row(
        f"nightly {asked.model}, no gate", f"{np.mean([pair[0] for pair in late]):.4f}", str(len(every)), "", str(len(every))
    )
    table.add_row("nightly TF-IDF", f"{np.mean([pair[1] for pair in late]):.4f}", str(len(every)), "", str(len(every)))
    found: dict[str, object] = {"set": asked.set, "nightly": every}
    for margin in [None, *asked.margins] if not asked.nights else []:
        name = "two of five, no gate" if margin is None else f"margin {margin:g}" if margin else "superiority"
        told = play(world, margin)
        table.add_row(name, f"{told.mean():.4f}", str(len(told.promoted)), str(told.worse), str(told.trainings))
        found[name] = {"mean": told.mean(), **told.__dict__}
    console = Console()
    console.print(table, f"{' '.join(asked.set) or 'params.yaml'}; {time.monotonic() - started:.0f} s")
    console.print(" ".join(f"{night}:{pair[0]:.3f}/{pair[1]:.3f}" for night, pair in every.items()))
    (STORE / "loop.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
