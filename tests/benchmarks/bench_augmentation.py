"""What copies of training rows gain: the platform's GLM classifier on few bundled reviews, with them and without, at equal steps.

    python tests/benchmarks/bench_augmentation.py --rows 800 --steps 100 --copies 2 --tuning 3 --judging 12      # or: make bench

A pair is one seed: the same rows drawn from the training split, the same tokenizer (made of those rows), first weights, order seed,
optimiser steps, and choice of the best of three evaluations on validation rows. Only the copies differ. Each side is scored on all
rows whose text is held out. The operations are chosen on the tuning seeds alone; the choice is judged on others, whatever comes out.
The interval is Student's, 95 %, over the judging seeds' differences.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

os.environ["OMP_NUM_THREADS"] = "1"  # read when torch is imported

import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from autoglm_ops.contracts.arrays import TokenArrays, TokenMeta, write_arrays
from autoglm_ops.data import bundled, tokenizer
from autoglm_ops.data.augment import OPERATIONS, Options, augment
from autoglm_ops.data.dedup import dedup
from autoglm_ops.data.rows import Row, Shape
from autoglm_ops.data.split import Shares, side
from autoglm_ops.data.tables import Sample
from autoglm_ops.settings import Settings, load
from autoglm_ops.training.metrics import macro_f1
from autoglm_ops.training.models import ModelSpec, build
from autoglm_ops.training.plain import PlainEngine
from autoglm_ops.training.recipe import Recipe
from autoglm_ops.training.rows import Rows, fit, score

ROOT = Path(__file__).parents[2]
VALIDATION = 500
CHOICES: dict[str, tuple[str, ...]] = {**{name: (name,) for name in OPERATIONS}, "all": tuple(OPERATIONS)}


class Pool(NamedTuple):
    """The bundled reviews, each text once, by the side its content belongs to."""

    train: list[Sample]
    validation: list[Sample]
    gate: list[Sample]


def pool(shares: Shares, days: int) -> Pool:
    shape = Shape({name: name for name in ("text", "label", "timestamp", "id", "source")}, date(2026, 1, 1))
    distinct, _ = dedup(row for row in bundled.read(shape, days) if isinstance(row, Row) and row.text)
    found: dict[str, list[Sample]] = {"train": [], "validation": [], "gate": []}
    for text in distinct:
        found[side(text.key, shares)].append(text.first)
    random.Random(0).shuffle(found["validation"])
    return Pool(found["train"], found["validation"][:VALIDATION], found["gate"])


def trained(settings: Settings, data: Pool, rows: Sequence[Sample], copies: Sequence[Sample], seed: int, steps: int) -> float:
    """Macro-F1 on the held-out rows after `steps` steps on `rows` and `copies`."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tokenizer.save(
            tokenizer.train((row.text for row in rows), settings.tokenize.vocabulary, settings.tokenize.longest),
            folder / "tok",
            128,
        )
        made, pad = tokenizer.load(folder / "tok")
        labels = bundled.LABELS
        for part, chosen in (("train", [*rows, *copies]), ("validation", data.validation), ("gate", data.gate)):
            ids = tokenizer.encode(made, [row.text for row in chosen], settings.tokenize.max_length)
            write_arrays(folder, part, ids, [labels.index(row.label) for row in chosen])
        train, validation, gate = (TokenArrays.open(folder, part) for part in ("train", "validation", "gate"))
        meta = TokenMeta(
            vocabulary=made.get_vocab_size(),
            pad_id=pad,
            max_length=settings.tokenize.max_length,
            labels=labels,
            rows={"train": len(train)},
        )
        recipe = Recipe.of(settings.train.model_dump(), rows=len(train), seed=seed, steps=steps)
        module = build(ModelSpec.of(settings.model.model_dump(), meta, ROOT), seed)
        engine = PlainEngine(module, recipe)
        best = fit(engine, Rows(train, validation, pad, len(labels)), recipe).best
        module.load_state_dict(best)
        answers = score(engine, gate, pad, len(labels)).argmax(1)
        return macro_f1(np.asarray(gate.labels), answers, len(labels))


def pair(settings: Settings, data: Pool, asked: argparse.Namespace, seed: int, names: Sequence[str]) -> dict[str, float]:
    """Each named choice's macro-F1, and "off", of one seed."""
    rows = random.Random(seed).sample(data.train, asked.rows)
    shares = _shares(settings)
    found = {"off": trained(settings, data, rows, (), seed, asked.steps)}
    for name in names:
        options = Options(asked.copies, CHOICES[name], settings.prepare.augment.share, seed)
        copies = [copy.sample() for copy in augment(rows, shares, options).copies]
        found[name] = trained(settings, data, rows, copies, seed, asked.steps)
    return found


def gain(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean and 95 % Student interval."""
    mean = statistics.mean(values)
    half = student.ppf(0.975, len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5
    return mean, mean - half, mean + half


def _shares(settings: Settings) -> Shares:
    return Shares(settings.prepare.holdout, settings.prepare.validation, settings.prepare.gate_days, 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("rows", 800), ("steps", 100), ("copies", 2), ("tuning", 3), ("judging", 12)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--operations", choices=[*CHOICES, "tuned"], default="tuned", help="judge this choice, and tune none")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    started, settings = time.monotonic(), load(ROOT / "params.yaml", environ={})
    data = pool(_shares(settings), settings.data.days)
    console, table = Console(), Table("seeds", "operations", "macro-F1", "gain", "95 % interval", box=None)
    best, tuning = asked.operations, list[dict[str, float]]()
    if best == "tuned":
        tuning = [pair(settings, data, asked, seed, list(CHOICES)) for seed in range(asked.tuning)]
        for name in CHOICES:
            _row(table, "tuning", name, tuning)
        best = max(CHOICES, key=lambda name: statistics.mean(found[name] for found in tuning))
    judging = [pair(settings, data, asked, seed, [best]) for seed in range(1000, 1000 + asked.judging)]
    _row(table, "judging", best, judging)
    off = statistics.mean(found["off"] for found in judging)
    spent = time.monotonic() - started
    console.print(
        f"{platform.machine()}, Python {platform.python_version()}, torch {torch.__version__}: {asked.rows} rows, {asked.copies} copies "
        f"of each, {asked.steps} steps, {len(data.gate)} held-out rows; off {off:.4f}; {spent:.0f} s",
        table,
    )
    out = ROOT / ".autoglm" / "bench" / "augmentation.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**vars(asked), "best": best, "tuning_pairs": tuning, "judging_pairs": judging}, indent=1) + "\n")


def _row(table: Table, seeds: str, name: str, pairs: Sequence[dict[str, float]]) -> None:
    mean, low, high = gain([found[name] - found["off"] for found in pairs])
    score_of = statistics.mean(found[name] for found in pairs)
    table.add_row(f"{seeds} {len(pairs)}", name, f"{score_of:.4f}", f"{mean:+.4f}", f"{low:+.4f} to {high:+.4f}")


if __name__ == "__main__":
    main()
