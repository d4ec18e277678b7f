"""Phase two, a task a range of keys: equal content is a copy, equal band keys are a pair to look at."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from autoglm_ops.data.neardup.options import Options
from autoglm_ops.data.neardup.sign import Keys, save, shards_signed
from autoglm_ops.data.steps.compiled import compiled

PARTNERS = 8
"""How many of a bucket's first documents each later one is compared with. All pairs would be quadratic where a template is filled in a
million times; the later ones are near the first ones anyway, and every band is another chance."""


def partitions(work: Path, options: Options) -> int:
    """Into how many key ranges the signed shards are cut so that one fits in `options.memory`.

    Sorting takes three times a range's size, and where templates are filled in its pairs take five times it.
    """
    size = sum(path.stat().st_size for folder in shards_signed(work) for path in folder.glob("*.npy"))
    return max(1, -(-10 * size // options.memory))


def match(partition: int, count: int, work: Path) -> None:
    """Range `partition` of `count` -> `copies/<partition>.npy` and `pairs/<partition>.npy`.

    Both uint64 [2, n]: the later document and the earlier one, sorted. A copy's earlier one is the first with the same content.
    """
    for kind, found in (("copies", _copies(_slice(work, "exact", partition, count))), ("pairs", _near(work, partition, count))):
        folder = work / kind
        folder.mkdir(exist_ok=True)
        save(folder / f"{partition:06d}.npy", in_order(found))


def in_order(pairs: Keys) -> Keys:
    """Sorted by the later document, then the earlier one; each pair once."""
    ordered = pairs[:, np.lexsort((pairs[1], pairs[0]))]
    if not ordered.shape[1]:
        return ordered
    fresh = np.concatenate([[True], (ordered[:, 1:] != ordered[:, :-1]).any(axis=0)])
    return ordered[:, fresh]


def _slice(work: Path, kind: str, partition: int, count: int) -> Keys:
    """The columns of all runs whose first key lies in the range, uint64 [3, n]."""
    low, high = ((place << 64) // count for place in (partition, partition + 1))
    parts = [np.empty((3, 0), np.uint64)]
    for folder in shards_signed(work):
        for path in sorted(folder.glob(f"{kind}.*.npy")):
            columns = np.load(path, mmap_mode="r", allow_pickle=False)
            begin = int(np.searchsorted(columns[0], np.uint64(low)))
            end = int(np.searchsorted(columns[0], np.uint64(high))) if high < 1 << 64 else columns.shape[1]
            parts.append(np.array(columns[:, begin:end]))
    return np.concatenate(parts, axis=1)


def _copies(columns: Keys) -> Keys:
    first, second, names = columns
    order = np.lexsort((names, second, first))
    return _pairs(first[order], second[order], np.zeros(len(order), np.uint64), names[order], 1)


def _near(work: Path, partition: int, count: int) -> Keys:
    keys, content, names = _slice(work, "bands", partition, count)
    order = np.lexsort((names, keys))
    return _pairs(
        keys[order], np.zeros(len(order), np.uint64), np.maximum(content[order], np.uint64(1)), names[order], PARTNERS
    )


@compiled
def _pairs(first: Keys, second: Keys, content: Keys, names: Keys, partners: int) -> Keys:
    """Each document with the first `partners` of its bucket (equal `first` and `second`); not when its content (0: unknown) is one's.

    A copy of an earlier document shares all its buckets, so leaving it out here loses no pair: its own partners are the other's.
    """
    out = np.empty((2, 1024), np.uint64)
    heads = np.empty(partners, np.int64)
    size = known = 0
    for place in range(len(names)):
        if place == 0 or first[place] != first[place - 1] or second[place] != second[place - 1]:
            known = 0
        if content[place] and (content[heads[:known]] == content[place]).any():
            continue
        if size + known > out.shape[1]:
            out = np.concatenate((out, np.empty_like(out)), axis=1)
        for head in heads[:known]:
            out[0, size], out[1, size] = names[place], names[head]
            size += 1
        if known < partners:
            heads[known] = place
            known += 1
    return out[:, :size].copy()
