"""Token arrays on disk and their reader: what `tokenize` writes and training maps into memory. numpy alone.

A split is `<split>.tokens.npy` int32 (all rows end to end), `<split>.offsets.npy` int64 (rows + 1) and `<split>.labels.npy` int64.
Where rows do not all weigh 1 there is `<split>.weights.npy` float32 too, with a mean of 1; where a teacher was asked,
`<split>.teacher.npy` float32 [rows, labels], the probabilities it gives each label.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.contracts.record import Record
from autoglm_ops.errors import Tampered


class TokenMeta(Record):
    """`meta.json`. vocabulary: how many token ids there are. labels: label id -> label. rows: split -> rows. mean_length: tokens
    of a training row on average, rounded up; 0 where an older version wrote it."""

    vocabulary: int
    pad_id: int
    max_length: int
    labels: tuple[str, ...]
    rows: dict[str, int]
    mean_length: int = 0


@dataclass(frozen=True)
class TokenArrays:
    """One split, mapped and not read. `arrays[i]` is row i's int32 ids, without padding."""

    tokens: NDArray[np.int32]
    offsets: NDArray[np.int64]
    labels: NDArray[np.int64]
    weights: NDArray[np.float32] | None = None
    teacher: NDArray[np.float32] | None = None

    @classmethod
    def open(cls, folder: Path, split: str) -> TokenArrays:
        """Map `split` of a tokenize output. Raises Tampered when the three files do not belong together."""
        tokens, offsets, labels = (
            np.load(folder / f"{split}.{part}.npy", mmap_mode="r", allow_pickle=False)
            for part in ("tokens", "offsets", "labels")
        )
        if len(offsets) != len(labels) + 1 or offsets[0] != 0 or offsets[-1] != len(tokens):
            raise Tampered(
                f"{folder}/{split}.*.npy do not belong together: {len(tokens)} tokens, {len(offsets)} offsets, "
                f"{len(labels)} labels; run `autoglm stage tokenize` again"
            )
        weights = _of_rows(folder / f"{split}.weights.npy", "weights", len(labels))
        teacher = _of_rows(folder / f"{split}.teacher.npy", "opinions", len(labels))
        return cls(tokens, offsets, labels, weights, teacher)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, row: int) -> NDArray[np.int32]:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)}")
        return self.tokens[self.offsets[row] : self.offsets[row + 1]]

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Tokens per row, int64 [rows]."""
        return np.diff(self.offsets)

    def take(self, rows: NDArray[np.int64]) -> TokenArrays:
        """These rows with their weights and opinions, copied, in this order."""
        offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(self.lengths[rows])])
        parts = [self[int(row)] for row in rows]
        weights, teacher = (None if found is None else np.asarray(found)[rows] for found in (self.weights, self.teacher))
        tokens = np.concatenate([*parts, np.empty(0, np.int32)])
        return TokenArrays(tokens, offsets, np.asarray(self.labels)[rows], weights, teacher)


def _of_rows(path: Path, what: str, rows: int) -> NDArray[np.float32] | None:
    """What `path` says of each of `rows` rows, if it is there."""
    found = np.load(path, mmap_mode="r", allow_pickle=False) if path.exists() else None
    if found is not None and len(found) != rows:
        raise Tampered(f"{path} has {len(found)} {what} for {rows} rows; run `autoglm stage tokenize` again")
    return found


def write_arrays(
    folder: Path,
    split: str,
    rows: Iterable[Sequence[int]],
    labels: Sequence[int],
    weights: Sequence[float] = (),
    teacher: NDArray[np.float32] | None = None,
) -> None:
    """Write one split; `rows` are token ids, one sequence per label. `weights`, if given, one a row, are scaled to a mean of 1;
    `teacher` [rows, labels] are probabilities."""
    parts = [np.asarray(row, np.int32) for row in rows]
    if len(parts) != len(labels):
        raise ValueError(f"{len(parts)} rows but {len(labels)} labels")
    offsets = np.zeros(len(parts) + 1, np.int64)
    np.cumsum([len(part) for part in parts], out=offsets[1:])
    np.save(folder / f"{split}.tokens.npy", np.concatenate([*parts, np.empty(0, np.int32)]))
    np.save(folder / f"{split}.offsets.npy", offsets)
    np.save(folder / f"{split}.labels.npy", np.asarray(labels, np.int64))
    if any(weight != 1 for weight in weights):
        scaled = np.asarray(weights, np.float64)
        np.save(folder / f"{split}.weights.npy", (scaled / scaled.mean()).astype(np.float32))
    if teacher is not None:
        np.save(folder / f"{split}.teacher.npy", np.asarray(teacher, np.float32))
