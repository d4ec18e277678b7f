"""A dataset as packed token sequences, for training on plain text: memory-mapped arrays beside a record of what made them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from autoglm_ops.contracts.flow import DatasetPart, PackedDataset
from autoglm_ops.contracts.record import digest_of, digest_path
from autoglm_ops.data import tokenizer as tokenizers
from autoglm_ops.data.build.finish import load, verified
from autoglm_ops.data.build.folders import frames, made_whole
from autoglm_ops.data.steps.packing import Packed, pack, tokenise
from autoglm_ops.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

RECORD = "_packed.json"
Watch = Callable[[int, int], None]
"""Parts done, parts in all."""


def packed(folder: Path, given: Path, length: int, end: str | None, home: Path, watch: Watch) -> tuple[PackedDataset, Path]:
    """The dataset in `folder` as sequences of `length` tokens of the tokenizer in `given`, `end` (a token) behind each document.

    Each part becomes `part-<n>.tokens.npy` and `part-<n>.segments.npy`, int32 [rows, length] both: ids, and 1, 2, … for the documents of
    a row in order, 0 where the tokenizer's padding is. One part is in memory at a time. The folder, `home/packed/<key>`, is named after what made it, so
    that the same is made once. Raises UsageError for a token that the tokenizer has not, Tampered when the dataset was changed.
    """
    dataset = verified(folder, load(folder).digest)
    tokenizer, pad = tokenizers.load(given)
    ends = _id(tokenizer, end)
    asked = {"dataset": dataset.digest, "tokenizer": digest_path(given / "tokenizer.json"), "length": length, "end": end}
    target = home / "packed" / digest_of(asked)[:16]
    if not (target / RECORD).exists():
        with made_whole(target) as part:
            made = []
            for number, one in enumerate(dataset.parts):
                texts = pl.concat([frame["text"] for frame in frames(folder / one.name)])
                made.append(_written(pack(tokenise(tokenizer, texts, ends), length, pad), part, number))
                watch(number + 1, len(dataset.parts))
            files = [file for found, _ in made for file in found]
            record = PackedDataset(
                **asked,
                digest=digest_of({file.name: file.sha256 for file in files}),
                documents=dataset.kept,
                rows=sum(file.rows for file in files) // 2,
                tokens=sum(tokens for _, tokens in made),
                files=tuple(files),
            )
            record.write(part / RECORD)
    return PackedDataset.read(target / RECORD), target


def _id(tokenizer: Tokenizer, end: str | None) -> int | None:
    found: int | None = None if end is None else tokenizer.token_to_id(end)
    if end is not None and found is None:
        raise UsageError(f"the tokenizer has no token {end!r}; name one it has, as in --end '<|endoftext|>', or leave it out")
    return found


def _written(found: Packed, out: Path, number: int) -> tuple[list[DatasetPart], int]:
    """The two files of one part, and how many tokens they hold."""
    files = []
    for name, array in (("tokens", found.tokens), ("segments", found.segments)):
        file = out / f"part-{number:06d}.{name}.npy"
        np.save(file, array)
        files.append(DatasetPart(name=file.name, sha256=digest_path(file), rows=len(array), size=file.stat().st_size))
    return files, int((found.segments > 0).sum())
