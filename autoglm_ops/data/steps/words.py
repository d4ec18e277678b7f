"""Words of a text, hashed: what is between white space, and in CJK text, which has none, each character by itself.

The filters of Rae et al. 2021 count words. datatrove leaves the choice of tokeniser to its user; this is ours, and
`tests/benchmarks/bench_data.py` gives datatrove the same.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.data.steps.characters import ALPHA, PUNCTUATION, SPACE, code_at, width
from autoglm_ops.data.steps.compiled import compiled, mix

LETTERED, SOLID = 1, 2
BASE = np.uint64(0x9E3779B97F4A7C55)

Words = tuple[NDArray[np.uint64], NDArray[np.uint64], NDArray[np.int32], NDArray[np.uint8]]
"""Per word: hash (a polynomial in BASE over its characters), BASE ** length, length in characters, and the bits LETTERED (has a
letter) and SOLID (has a character that is no punctuation)."""


@compiled
def room(size: int) -> Words:
    """Space for the words of a text of `size` bytes, used again for each."""
    return np.empty(size, np.uint64), np.empty(size, np.uint64), np.empty(size, np.int32), np.empty(size, np.uint8)


@compiled
def longest(offsets: NDArray[np.int64]) -> int:
    """Bytes of the longest text."""
    size = 0
    for row in range(len(offsets) - 1):
        size = max(size, offsets[row + 1] - offsets[row])
    return size


@compiled
def read_words(data: NDArray[np.uint8], start: int, stop: int, flags: NDArray[np.uint8], single: int, out: Words) -> int:
    """Fill `out` with the words between two places; how many. A character with the flag `single` (0: none) is a word of its own."""
    hashes, powers, lengths, kinds = out
    found = 0
    inside = False
    place = start
    while place < stop:
        code = code_at(data, place)
        place += width(data[place])
        flag = flags[code]
        if flag & SPACE:
            inside = False
            continue
        alone = flag & single
        if not inside or alone:
            hashes[found], powers[found], lengths[found], kinds[found] = np.uint64(0), np.uint64(1), 0, 0
            found += 1
        word = found - 1
        hashes[word] = hashes[word] * BASE + np.uint64(code + 1)
        powers[word] *= BASE
        lengths[word] += 1
        kinds[word] |= (LETTERED if flag & ALPHA else 0) | (0 if flag & PUNCTUATION else SOLID)
        inside = not alone
    return found


@compiled
def place_in(table: NDArray[np.uint64], key: np.uint64) -> tuple[int, bool]:
    """The slot of `key` in an open-addressing `table` (a power of two long, 0 is empty), and whether it was there; it is now."""
    key = mix(key) | np.uint64(1)
    mask = np.uint64(len(table) - 1)
    slot = (key >> np.uint64(1)) & mask
    while table[slot] != np.uint64(0):
        if table[slot] == key:
            return int(slot), True
        slot = (slot + np.uint64(1)) & mask
    table[slot] = key
    return int(slot), False


@compiled
def table_size(items: int) -> int:
    """A power of two that leaves a table of `items` at most half full."""
    size = 16
    while size < 2 * items:
        size *= 2
    return size
