"""Documents as token sequences of one length, with as few cuts and as little padding as best fit gives."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from autoglm_ops.data.steps.compiled import compiled
from autoglm_ops.errors import UsageError

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class Packed(NamedTuple):
    """Sequences of one length, int32 [rows, length].

    tokens: ids, `pad` behind the last document. segments: 1, 2, … for the documents of a row in order, 0 for padding. documents: which
    document (its place in the input) a token is of, -1 for padding.
    """

    tokens: NDArray[np.int32]
    segments: NDArray[np.int32]
    documents: NDArray[np.int32]

    def cu_seqlens(self, row: int) -> NDArray[np.int32]:
        """Where each document of a row begins, and where the last one ends: int32 [documents in the row + 1], as attention kernels
        for variable lengths take it."""
        sizes = np.bincount(self.segments[row])[1:]
        return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)


def tokenise(tokenizer: Tokenizer, texts: pl.Series, end: int | None = None) -> list[NDArray[np.int32]]:
    """int32 ids per text, whole, without special tokens but `end` (an id) behind each. A special token that stands in a text is
    spelled out (threats F35)."""
    tokenizer.encode_special_tokens = True
    tokenizer.no_padding()
    tokenizer.no_truncation()
    tail = [] if end is None else [end]
    encodings = tokenizer.encode_batch_fast(texts.fill_null("").to_list(), add_special_tokens=False)
    return [np.array(encoding.ids + tail, np.int32) for encoding in encodings]


def pack(documents: Iterable[Sequence[int] | NDArray[np.int32]], length: int, pad: int) -> Packed:
    """Best-fit-decreasing packing (Ding et al. 2024, "Fewer Truncations Improve Language Modeling").

    A document longer than `length` is cut into full sequences and a rest; no other is cut. Each piece goes where the least room is left
    that it fits in. Every token is in the result once; order inside a document is kept. Raises UsageError when `length` < 1.
    """
    if length < 1:
        raise UsageError(f"a sequence length of {length} holds no token; give 1 or more")
    arrays = [np.asarray(document, np.int32) for document in documents]
    sizes = np.array([len(array) for array in arrays], np.int64)
    offsets = np.concatenate([[0], np.cumsum(sizes)])
    owner, start, size = _pieces(sizes, offsets, length)
    order = np.argsort(-size, kind="stable")
    row, column, rows = _place(size[order], length)
    flat = np.concatenate([*arrays, np.empty(0, np.int32)])
    out = Packed(*(np.full((rows, length), fill, np.int32) for fill in (pad, 0, -1)))
    _fill(flat, np.stack([owner[order], start[order], size[order], row, column]), out)
    return out


def _pieces(
    sizes: NDArray[np.int64], offsets: NDArray[np.int64], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Owner, start and size of every piece of at most `length` tokens; an empty document has none."""
    counts = -(-sizes // length)
    owner = np.repeat(np.arange(len(sizes)), counts)
    nth = np.arange(len(owner)) - np.repeat(np.cumsum(counts) - counts, counts)
    start = offsets[owner] + nth * length
    return owner, start, np.minimum(length, offsets[owner + 1] - start)


@compiled
def _place(sizes: NDArray[np.int64], length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], int]:
    """Row and column of each piece, largest first. Rows with equal room are a linked list under that room."""
    row, column = np.empty(len(sizes), np.int64), np.empty(len(sizes), np.int64)
    head, following = np.full(length + 1, -1, np.int64), np.full(len(sizes), -1, np.int64)
    rows = 0
    for piece in range(len(sizes)):
        room = sizes[piece]
        while room <= length and head[room] < 0:
            room += 1
        if room > length:
            room, chosen = length, rows
            rows += 1
        else:
            chosen = head[room]
            head[room] = following[chosen]
        row[piece], column[piece] = chosen, length - room
        left = room - sizes[piece]
        following[chosen] = head[left]
        head[left] = chosen
    return row, column, rows


@compiled
def _fill(flat: NDArray[np.int32], pieces: NDArray[np.int64], out: Packed) -> None:
    """`pieces` int64 [5, n]: owner, start in `flat`, size, row, column."""
    tokens, segments, documents = out
    seen = np.zeros(len(tokens), np.int32)
    for piece in range(pieces.shape[1]):
        owner, start, size, row, column = pieces[:, piece]
        seen[row] += 1
        tokens[row, column : column + size] = flat[start : start + size]
        segments[row, column : column + size] = seen[row]
        documents[row, column : column + size] = owner
