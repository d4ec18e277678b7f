"""tokenize: a tokenizer made of the training rows (or the one named), and token arrays that training maps into memory.

Augmented copies are learned from and nothing else: they stand in the training arrays, behind the rows, and the tokenizer never sees them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.contracts.arrays import TokenMeta, write_arrays
from autoglm_ops.contracts.data import SPLITS, DatasetVersion
from autoglm_ops.contracts.record import digest_path
from autoglm_ops.data import tokenizer as tokenizers
from autoglm_ops.data.tables import Copy, Sample, read_copies, read_samples
from autoglm_ops.evaluation.baseline import opinions
from autoglm_ops.stages import folders
from autoglm_ops.stages.base import Context, Outcome


def run(context: Context) -> Outcome:
    """Writes tokenizer/, {train,validation,gate}.{tokens,offsets,labels}.npy (weights.npy too where rows weigh differently, and
    train.teacher.npy where one is asked) and meta.json."""
    started = time.monotonic()
    settings, folder = context.settings.tokenize, context.out / "tokenizer"
    labels = DatasetVersion.read(context.output("prepare", "dataset.json")).labels
    samples = {name: read_samples(context.output("prepare", f"{name}.parquet")) for name in SPLITS}
    given = folders.tokenizer(context)
    if given is None:
        trained = tokenizers.train((row.text for row in samples["train"]), settings.vocabulary, settings.longest)
        tokenizers.save(trained, folder, settings.max_length)
    else:
        tokenizers.copy(given, folder)
    tokenizer, pad_id = tokenizers.load(folder)
    made = context.output("prepare", "copies.parquet")
    copies = read_copies(made) if made.is_file() else []
    teacher = None if settings.teacher == "none" else teacher_of(samples["train"], copies, labels)
    samples["train"] += [copy.sample() for copy in copies]
    lengths = dict[str, int]()
    for name, rows in samples.items():
        ids = tokenizers.encode(tokenizer, [row.text for row in rows], settings.max_length)
        weights = [row.weight for row in rows]
        write_arrays(context.out, name, ids, _label_ids(rows, labels), weights, teacher if name == "train" else None)
        lengths[name] = sum(map(len, ids))
    rows_of = {name: len(rows) for name, rows in samples.items()}
    size = tokenizer.get_vocab_size()
    usual, tokens = math.ceil(lengths["train"] / rows_of["train"]), sum(lengths.values())
    TokenMeta(
        vocabulary=size, pad_id=pad_id, max_length=settings.max_length, labels=labels, rows=rows_of, mean_length=usual
    ).write(context.out / "meta.json")
    facts = {"tokenizer": digest_path(folder), "trained": given is None, "vocabulary": size, "tokens": tokens}
    if teacher is not None:  # how often the teacher, not having seen a row, thinks what its label says
        facts["teacher_agrees"] = round(float(np.mean(teacher.argmax(1) == _label_ids(samples["train"], labels))), 4)
    return Outcome(facts=facts, measured={"tokens_per_second": round(tokens / (time.monotonic() - started))})


def teacher_of(rows: Sequence[Sample], copies: Sequence[Copy], labels: tuple[str, ...]) -> NDArray[np.float32]:
    """What the teacher thinks of each row and then of each copy, having seen neither that row nor its copies."""
    number = {row.id: place for place, row in enumerate(rows)}
    return opinions(
        [row.text for row in rows],
        [row.label for row in rows],
        [row.weight for row in rows],
        [row.day for row in rows],
        [row.text for row in rows] + [copy.text for copy in copies],
        [*range(len(rows)), *(number[copy.parent] for copy in copies)],
        labels,
    )


def _label_ids(rows: list[Sample], labels: tuple[str, ...]) -> list[int]:
    number = {label: place for place, label in enumerate(labels)}
    return [number[row.label] for row in rows]
