"""A text as a set of hashed word n-grams, and the set as MinHash band keys (Broder 1997; bands: Leskovec et al., 3.4)."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.data.neardup.options import Options
from autoglm_ops.data.steps.characters import CJK, WORD, characters, code_at, width
from autoglm_ops.data.steps.compiled import Flat, compiled, mix
from autoglm_ops.data.steps.words import BASE, longest


class Shingles(NamedTuple):
    """`hashes` uint32, each text's in order and with repeats; `offsets` int64 (rows + 1)."""

    hashes: NDArray[np.uint32]
    offsets: NDArray[np.int64]


def shingles(texts: Flat, ngram: int) -> Shingles:
    """Every run of `ngram` words, hashed. A text of fewer words is one shingle, a text without words has none.

    32 bits are enough: two sets of 10,000 shingles share one by chance once in 40 pairs, which moves their similarity by 0.00005.
    """
    tables = characters()
    return Shingles(*_shingles(texts.data, texts.offsets, tables.flags, tables.lower, ngram))


def band_keys(sets: Shingles, options: Options) -> NDArray[np.uint64]:
    """uint64 [rows, bands]: equal keys in one band mean that `rows` MinHash values are equal. Rows without shingles have key 0."""
    factors, terms = _permutations(options)
    return _band_keys(sets.hashes, sets.offsets, factors, terms, options.bands)


def _permutations(options: Options) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """x -> factor * x + term modulo 2**32, factor odd: a bijection whose high bits, which decide a minimum, mix all of x's."""
    count = options.bands * options.rows
    drawn = np.array([mix(np.uint64(options.seed * 1_000_003 + place + 1)) for place in range(2 * count)], np.uint64)
    values = (drawn >> np.uint64(32)).astype(np.uint32)
    return values[:count] | np.uint32(1), values[count:]


@compiled
def _shingles(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], flags: NDArray[np.uint8], lower: NDArray[np.int32], ngram: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    words = np.empty(longest(offsets), np.uint64)
    out, ends = np.empty(len(data), np.uint32), np.zeros(len(offsets), np.int64)
    end = 0
    for row in range(len(offsets) - 1):
        found = _words(data, offsets[row], offsets[row + 1], flags, lower, words)
        for first in range(max(min(found, 1), found - ngram + 1)):
            value = np.uint64(0)
            for word in words[first : min(found, first + ngram)]:
                value = (value ^ word) * BASE
                value ^= value >> np.uint64(32)
            out[end] = mix(value) >> np.uint64(32)
            end += 1
        ends[row + 1] = end
    return out[:end].copy(), ends


@compiled
def _words(
    data: NDArray[np.uint8],
    start: int,
    stop: int,
    flags: NDArray[np.uint8],
    lower: NDArray[np.int32],
    words: NDArray[np.uint64],
) -> int:
    """Hashes of the runs of letters and digits, in lower case, and of the CJK characters one by one; how many."""
    found = 0
    inside = False
    while start < stop:
        code = code_at(data, start)
        start += width(data[start])
        flag = flags[code]
        if not flag & WORD:
            inside = False
            continue
        if not inside or flag & CJK:
            words[found] = np.uint64(0)
            found += 1
        words[found - 1] = words[found - 1] * BASE + np.uint64(lower[code] + 1)
        inside = not flag & CJK
    return found


@compiled
def _band_keys(
    hashes: NDArray[np.uint32],
    offsets: NDArray[np.int64],
    factors: NDArray[np.uint32],
    terms: NDArray[np.uint32],
    bands: int,
) -> NDArray[np.uint64]:
    count, rows = len(factors), len(factors) // bands
    out = np.zeros((len(offsets) - 1, bands), np.uint64)
    least = np.empty(count, np.uint32)
    for row in range(len(offsets) - 1):
        if offsets[row] == offsets[row + 1]:
            continue
        least[:] = np.uint32(0xFFFFFFFF)
        for shingle in hashes[offsets[row] : offsets[row + 1]]:
            for place in range(count):
                value = np.uint32(factors[place] * shingle + terms[place])
                least[place] = min(least[place], value)
        for band in range(bands):
            key = np.uint64(band)
            for value in least[band * rows : (band + 1) * rows]:
                key = mix(key ^ np.uint64(value)) * BASE
            out[row, band] = max(mix(key), np.uint64(1))
    return out


@compiled
def jaccards(
    hashes: NDArray[np.uint32], offsets: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The Jaccard similarity of the sets `left[k]` and `right[k]`. Sorts each set of `hashes` in place."""
    for row in range(len(offsets) - 1):
        hashes[offsets[row] : offsets[row + 1]].sort()
    out = np.zeros(len(left), np.float64)
    for pair in range(len(left)):
        out[pair] = _jaccard(
            hashes[offsets[left[pair]] : offsets[left[pair] + 1]], hashes[offsets[right[pair]] : offsets[right[pair] + 1]]
        )
    return out


@compiled
def _jaccard(left: NDArray[np.uint32], right: NDArray[np.uint32]) -> float:
    """Over two sorted arrays, where a value counts once however often it stands there."""
    here = there = both = either = 0
    while here < len(left) or there < len(right):
        value = left[here] if there == len(right) or (here < len(left) and left[here] <= right[there]) else right[there]
        in_left = here < len(left) and left[here] == value
        both += in_left and there < len(right) and right[there] == value
        either += 1
        while here < len(left) and left[here] == value:
            here += 1
        while there < len(right) and right[there] == value:
            there += 1
    return both / either if either else 0.0
