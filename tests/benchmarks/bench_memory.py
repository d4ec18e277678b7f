"""The planner's memory model against what two DeepSpeed ranks on this machine allocate.

    python tests/benchmarks/bench_memory.py            # or: make bench

For each layout the planner's own plan and deepspeed.json drive the trainer's engine for two steps over gloo, one thread a rank.
Allocated: torch's profiler reports every allocation and release of tensor bytes; their running sum from before the model is built,
at its highest. Resident: the same again without the profiler, the kernel's high-water mark above what the process held before
(pages that were never touched do not count, so it can lie below what was allocated), with freed memory given back as the trainer has it
where memory is scarce (training/allocator.py). Kept: the same as glibc has it by default, which is how ranks run where memory is not
scarce. Garbage in cycles is collected before each step, since when Python would get to it is chance; what arises within a step can still
add to a row, so the lowest of three runs counts (of what is kept, the first). Each layout has two processes of its own, forked of one
that has imported, as ranks are.

Gates: allocated within 15 % of the plan's total on every row. Where that total is JUDGED_FROM or more (below it a few ten MB that belong
to no plan, holes in the heaps of threads, are too large a part): resident within 25 %, and kept within 1 / SCARCE times the total, so
that a plan that is not scarce fits as glibc has it.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from rich.console import Console
from rich.table import Table

from autoglm_ops.contracts.training import HardwareSpec, ModelShape
from autoglm_ops.planning import Layout, deepspeed_config, shape_of_config
from autoglm_ops.planning.planner import to_plan, weigh
from autoglm_ops.training.allocator import SCARCE

ROOT = Path(__file__).parents[2]
RANKS, STEPS = 2, 2  # the second step meets the moments that the first one made
TRIES = 3  # a thread of gloo may let go of a gradient a moment later: 4 of 21 MB in 1 of 12 tries, on busy cores in all three
GATES = {"allocated": 0.15, "resident": 0.25}
JUDGED_FROM = 128 << 20
HERE = HardwareSpec(cpus=2, memory_gib=16)

# hidden, layers, vocabulary, row length: deep and narrow in words, the platform's default, and one a hundred times heavier
MODELS = {"deep": (256, 4, 1000, 64), "default": (128, 1, 8000, 128), "large": (512, 5, 4000, 64)}
Case = tuple[str, dict[str, Any]]


def cases() -> Iterator[Case]:
    """Model by stage by micro-batch, then accumulation and checkpointing."""
    for model in ("deep", "default"):
        for stage in range(4):
            for micro in (1, 16):
                yield model, {"zero_stage": stage, "micro_batch": micro}
    for stage in range(4):
        yield "deep", {"zero_stage": stage, "micro_batch": 4, "accumulation": 2}
    for stage in range(4):  # large enough for its resident memory to be judged
        for micro in (1, 4, 8):
            yield "large", {"zero_stage": stage, "micro_batch": micro}
    for stage in (0, 3):
        yield "large", {"zero_stage": stage, "micro_batch": 4, "checkpointing": True}


def configured(model: str) -> dict[str, Any]:
    hidden, layers, vocabulary, length = MODELS[model]
    return {
        "vocab_size": vocabulary,
        "hidden_size": hidden,
        "intermediate_size": 2 * hidden,
        "num_hidden_layers": layers,
        "num_attention_heads": hidden // 32,
        "num_key_value_heads": hidden // 32,
        "head_dim": 32,
        "max_position_embeddings": length,
        "pad_token_id": 0,
        "eos_token_id": 0,
        "use_cache": False,
    }


def described(model: str, options: dict[str, Any]) -> tuple[ModelShape, Layout]:
    config = {"model_type": "glm", **configured(model)}
    shape = shape_of_config(config, task="classification", max_length=MODELS[model][3])
    return shape, Layout(RANKS, precision="fp32", device="cpu", **options)


def work(rank: int, meeting: Path, kept: bool) -> None:
    """One rank: every case in a process of its own, as glibc has it or giving memory back. Rank 0 prints a line a case.

    Its own, since DeepSpeed's engines outlive their last use, and what an allocator kept of one layout serves or breaks up the next.
    """
    import torch

    from autoglm_ops.training import allocator, engine, readout  # noqa: F401  # once, not in every case

    torch.set_num_threads(1)
    assert kept or allocator.give_back()
    for place, (model, options) in enumerate(cases()):
        process = os.fork()  # as the trainer's ranks begin: of one that has imported and started no thread
        if process == 0:
            measure_alone(rank, meeting.with_suffix(f".{place}"), kept, model, options)
        if os.waitpid(process, 0)[1]:
            raise SystemExit(f"rank {rank} did not end well at {model} with {options}")


def measure_alone(rank: int, meeting: Path, kept: bool, model: str, options: dict[str, Any]) -> None:
    """Measure one case and end this process."""
    from autoglm_ops.training.engine import join, leave

    try:
        join(rank, RANKS, "cpu", meeting)
        for small in ("default", "deep"):
            train(small, {**options, "micro_batch": 1})  # what is loaded lazily is not the model's
        measures = {"kept": (resident, 1)} if kept else {"resident": (resident, TRIES), "allocated": (allocated, TRIES)}
        found = {name: min(measured(model, options) for _ in range(tries)) for name, (measured, tries) in measures.items()}
        if rank == 0:
            print(json.dumps({"model": model, "options": options, **found}), flush=True)
        leave()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)
    os._exit(0)


def train(model: str, options: dict[str, Any]) -> None:
    """Build the model and take the steps, as the trainer's rank does it."""
    import torch
    from transformers import GlmConfig

    from autoglm_ops.training.engine import DeepSpeedEngine
    from autoglm_ops.training.readout import GlmForSequenceClassification
    from autoglm_ops.training.recipe import Recipe

    shape, layout = described(model, options)
    plan = to_plan(weigh(layout, shape, HERE), shape, HERE)
    torch.manual_seed(7)
    module = GlmForSequenceClassification(GlmConfig(**configured(model)))
    if layout.checkpointing:
        module.gradient_checkpointing_enable()
    recipe = Recipe(
        learning_rate=1e-3, weight_decay=0.1, batch_size=plan.global_batch, warmup_share=0.1, schedule="linear", label_smoothing=0.0,
        token_dropout=0.0, gradient_clip=1.0, steps=STEPS, report=(STEPS,), seed=7,
    )  # fmt: skip
    engine = DeepSpeedEngine(module, recipe, deepspeed_config(plan, learning_rate=1e-3, weight_decay=0.1, gradient_clip=1.0))
    batches = [batch(shape, layout.micro_batch) for _ in range(layout.accumulation)]
    for _ in range(STEPS):
        gc.collect()
        engine.step(batches, 1e-3)


def batch(shape: ModelShape, rows: int) -> Any:
    """Random rows, the first padded: a mask that masks nothing would be left out."""
    import torch

    from autoglm_ops.training.batch import Batch

    ids = torch.randint(1, shape.vocabulary, (rows, shape.max_length))
    mask = torch.ones_like(ids)
    mask[0, -shape.max_length // 4 :] = 0
    return Batch(ids, mask, torch.randint(0, 2, (rows,)))


def allocated(model: str, options: dict[str, Any]) -> int:
    """The largest sum of tensor bytes alive at once."""
    from torch.profiler import ProfilerActivity, profile

    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True, acc_events=False) as profiler:
        train(model, options)
    events = [event for event in cast(Any, profiler).profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def resident(model: str, options: dict[str, Any]) -> int:
    """The process's highest resident memory above what it was, on Linux."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    before = status("VmRSS")
    train(model, options)
    return status("VmHWM") - before


def status(name: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:"))


def measure(*how: str) -> Iterator[dict[str, Any]]:
    """Run the ranks; their cases as they come."""
    alone = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1"}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("w", encoding="utf-8") as errors:
            command = [sys.executable, __file__, *how, "--meeting", str(Path(folder) / "meeting"), "--rank"]
            ranks = [
                subprocess.Popen([*command, str(rank)], env=alone, stdout=subprocess.PIPE, stderr=errors, text=True)
                for rank in range(RANKS)
            ]
            assert ranks[0].stdout is not None
            yield from (json.loads(line) for line in ranks[0].stdout if line.startswith("{"))
            codes = [rank.wait() for rank in ranks]
        if any(codes):
            raise SystemExit(f"ranks ended with {codes}:\n{log.read_text(encoding='utf-8')[-2000:]}")


def judge(found: dict[str, Any]) -> dict[str, Any]:
    """A row of the table: what was said, what was, by how much they differ."""
    shape, layout = described(found["model"], found["options"])
    said = weigh(layout, shape, HERE).memory["total"]
    errors = {name: said / found[name] - 1 for name in GATES}
    checked = {name: name == "allocated" or said >= JUDGED_FROM for name in GATES}
    met = {name: abs(errors[name]) <= gate if checked[name] else None for name, gate in GATES.items()}
    met["kept"] = found["kept"] <= said / SCARCE or said < JUDGED_FROM
    return {**found, "parameters": shape.parameters, "predicted": said, "errors": errors, "met": met, "kind": layout.kind}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rank", type=int)
    parser.add_argument("--meeting", type=Path)
    parser.add_argument("--kept", action="store_true")
    options = parser.parse_args()
    if options.rank is not None:
        work(options.rank, options.meeting, options.kept)
        return
    rows = []
    for kept, found in zip(list(measure("--kept")), measure(), strict=True):
        rows.append(judge({**kept, **found}))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    table = Table(
        "model",
        "parameters",
        "plan",
        "batch",
        "predicted",
        "allocated",
        "off",
        "resident",
        "off",
        "kept",
        "times",
        title="MB a rank",
    )
    for row in rows:
        table.add_row(
            row["model"], f"{row['parameters']:,}", row["kind"], f"{row['options']['micro_batch']} x {row['options'].get('accumulation', 1)}",
            f"{row['predicted'] / 1e6:.1f}", f"{row['allocated'] / 1e6:.1f}", mark(row, "allocated"),
            f"{row['resident'] / 1e6:.1f}", mark(row, "resident"), f"{row['kept'] / 1e6:.1f}", f"{row['kept'] / row['predicted']:.2f}",
        )  # fmt: skip
    console = Console(width=None if sys.stdout.isatty() else 130)
    console.print(table)
    for name, gate in GATES.items():
        judged = [row for row in rows if row["met"][name] is not None]
        met, worst = sum(row["met"][name] for row in judged), max(abs(row["errors"][name]) for row in judged)
        console.print(f"{name}: {met} of {len(judged)} layouts within {gate:.0%}, the worst off by {worst:.1%}")
    out = ROOT / ".autoglm" / "bench" / "memory.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    console.print(
        f"kept by glibc's default: at most {max(row['kept'] / row['predicted'] for row in rows):.2f} times what the plan says"
    )
    if not all(met is not False for row in rows for met in row["met"].values()):
        raise SystemExit("the memory model is off by more than it may be")


def mark(row: dict[str, Any], name: str) -> str:
    met = row["met"][name]
    return f"{row['errors'][name]:+.1%}" + {True: "", False: " (over)", None: " (not judged)"}[met]


if __name__ == "__main__":
    main()
