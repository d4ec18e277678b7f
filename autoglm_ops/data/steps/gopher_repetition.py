"""Gopher's repetition rules (Rae et al. 2021, table A1), decided as datatrove 0.10.1 decides them, and the same over CJK characters."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from autoglm_ops.data.flow import Sifted, divide
from autoglm_ops.data.steps.characters import CJK, characters, length, strip
from autoglm_ops.data.steps.compiled import compiled, flat
from autoglm_ops.data.steps.gopher_quality import cjk
from autoglm_ops.data.steps.options import options
from autoglm_ops.data.steps.words import BASE, Words, longest, place_in, read_words, room, table_size
from autoglm_ops.errors import SettingsError

Table = NDArray[np.uint64]
TOP = ((2, 0.20), (3, 0.18), (4, 0.16))
DUPLICATE = ((5, 0.15), (6, 0.14), (7, 0.13), (8, 0.12), (9, 0.11), (10, 0.10))


@options
class GopherRepetition:
    """Drops what says the same again: repeated paragraphs, lines and word n-grams, as shares of their number and of the characters.

    `top` and `duplicate` are pairs (n, most share): of the characters in the most frequent n-gram, and in n-grams that came before.
    """

    max_lines: float = 0.30
    max_paragraphs: float = 0.30
    max_line_characters: float = 0.20
    max_paragraph_characters: float = 0.20
    top: tuple[tuple[int, float], ...] = TOP
    duplicate: tuple[tuple[int, float], ...] = DUPLICATE
    cjk: bool = False
    """Each CJK character is a word by itself."""
    cjk_share: float | None = 0.3
    """Which documents are judged: with `cjk` those whose letters are CJK for this share or more, else the others. None: all."""

    name: ClassVar[str] = "gopher-repetition"

    def __post_init__(self) -> None:
        if wrong := [n for n, _ in (*self.top, *self.duplicate) if n < 1]:
            raise SettingsError(f"{self.name}: an n-gram of {wrong[0]} words is none; n must be 1 or more")

    def __call__(self, frame: pl.DataFrame) -> Sifted:
        judged = self._judged(frame["text"])
        texts = frame["text"] if judged is None else frame["text"].zip_with(judged, pl.repeat("", frame.height, eager=True))
        word = "cjk" if self.cjk else "gopher"
        reason = pl.coalesce(
            pl.when(pl.nth(place) > limit).then(pl.lit(f"{word}-{name}")) for place, (name, limit) in enumerate(self._rules())
        )
        return divide(frame, pl.lit(pl.DataFrame(self._shares(texts)).select(reason.alias("reason")).to_series()))

    def _judged(self, texts: pl.Series) -> pl.Series | None:
        if self.cjk_share is None:
            return None
        found = cjk(texts, self.cjk_share)
        return found if self.cjk else ~found

    def _shares(self, texts: pl.Series) -> NDArray[np.float64]:
        sizes = (np.array([n for n, _ in pairs], np.int64) for pairs in (self.top, self.duplicate))
        return _shares(*flat(texts), characters().flags, CJK if self.cjk else 0, *sizes)

    def _rules(self) -> list[tuple[str, float]]:
        return [
            ("repeated-paragraphs", self.max_paragraphs),
            ("repeated-paragraphs", self.max_paragraph_characters),
            ("repeated-lines", self.max_lines),
            ("repeated-lines", self.max_line_characters),
            *((f"top-{n}-gram", limit) for n, limit in self.top),
            *((f"repeated-{n}-grams", limit) for n, limit in self.duplicate),
        ]


def cjk_repetition(**options: Any) -> GopherRepetition:
    """The rules for CJK text, each character a word.

    Thresholds: FineWeb2's for Chinese (huggingface/fineweb-2, configs/cmn_Hani.yml), which were fitted to segmented words; a run of
    characters is shorter than a run of as many words, so the n-gram rules are a little more lenient here.
    """
    chinese = {
        "max_lines": 0.287,
        "top": ((2, 0.256), (3, 0.201), (4, 0.171)),
        "duplicate": ((5, 0.198), (6, 0.182), (7, 0.167), (8, 0.154), (9, 0.140), (10, 0.127)),
        "cjk": True,
    }
    return GopherRepetition(**{**chinese, **options})


@compiled
def _shares(
    data: NDArray[np.uint8],
    offsets: NDArray[np.int64],
    flags: NDArray[np.uint8],
    single: int,
    top: NDArray[np.int64],
    duplicate: NDArray[np.int64],
) -> NDArray[np.float64]:
    """float64 [rows, 4 + len(top) + len(duplicate)], in the order of `_rules`."""
    out = np.zeros((len(offsets) - 1, 4 + len(top) + len(duplicate)), np.float64)
    size = longest(offsets)
    words, table = room(size), np.empty(table_size(size + 2), np.uint64)
    slots, counts = np.empty(size, np.int32), np.empty(len(table), np.int32)
    recurring = np.empty(size, np.bool_)
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        characters = max(1, length(data, start, stop))
        out[row, 0], out[row, 1] = _repeated(data, *strip(data, start, stop, flags), 2, table)
        out[row, 2], out[row, 3] = _repeated(data, start, stop, 1, table)
        out[row, 1] /= characters
        out[row, 3] /= characters
        found = read_words(data, start, stop, flags, single, words)
        for place in range(len(top)):
            out[row, 4 + place] = _top(words, found, top[place], 0 if single else 1, table, slots, counts) / characters
        if len(duplicate):
            _recurring(words, found, duplicate.min(), table, slots, counts, recurring)
        for place in range(len(duplicate)):
            out[row, 4 + len(top) + place] = _duplicate(words, found, duplicate[place], table, recurring) / characters
    return out


@compiled
def _repeated(data: NDArray[np.uint8], start: int, stop: int, least: int, table: Table) -> tuple[float, float]:
    """Cut at runs of `least` or more LF: the share of pieces that came before, and the characters in them."""
    pieces = 1
    for place in range(start, stop):
        pieces += data[place] == 10
    used = table[: table_size(pieces)]
    used[:] = 0
    pieces = repeated = characters = 0
    begin = place = start
    value = np.uint64(0)
    while place <= stop:
        end = place
        while place < stop and data[place] == 10:
            place += 1
        if place - end < least and end < stop:
            place = max(place, end + 1)
            value = (value ^ np.uint64(data[end])) * BASE
            value ^= value >> np.uint64(29)
            continue
        pieces += 1
        if place_in(used, value)[1]:
            repeated += 1
            characters += length(data, begin, end)
        if end == stop:
            break
        begin, value = place, np.uint64(0)
    return repeated / pieces, float(characters)


@compiled
def _top(words: Words, found: int, n: int, gap: int, table: Table, slots: NDArray[np.int32], counts: NDArray[np.int32]) -> int:
    """Characters in the most frequent n-gram, its words joined by `gap` spaces; of equals the first."""
    hashes, _, lengths, _ = words
    used = table[: table_size(max(0, found - n + 1))]
    used[:] = 0
    for first in range(found - n + 1):
        value = np.uint64(0)
        for word in range(first, first + n):
            value = (value ^ hashes[word]) * BASE
            value ^= value >> np.uint64(29)
        slot, known = place_in(used, value)
        counts[slot] = counts[slot] + 1 if known else 1
        slots[first] = slot
    best = most = 0
    for first in range(found - n + 1):
        if counts[slots[first]] > most:
            best, most = first, counts[slots[first]]
    return most * (lengths[best : best + n].sum() + gap * (n - 1)) if most else 0


@compiled
def _recurring(
    words: Words, found: int, n: int, table: Table, slots: NDArray[np.int32], counts: NDArray[np.int32], out: NDArray[np.bool_]
) -> None:
    """Where an n-gram begins that the text has twice. Longer ones can only recur there, which spares most of `_duplicate`'s work."""
    used = table[: table_size(max(0, found - n + 1))]
    used[:] = 0
    for first in range(found - n + 1):
        slot, known = place_in(used, _joined(words, first, n))
        counts[slot] = 2 if known else 1
        slots[first] = slot
    for first in range(found - n + 1):
        out[first] = counts[slots[first]] > 1


@compiled
def _duplicate(words: Words, found: int, n: int, table: Table, recurring: NDArray[np.bool_]) -> int:
    """Characters in n-grams that came before; after one that did, reading goes on behind it."""
    lengths = words[2]
    candidates = recurring[: max(0, found - n + 1)].sum()
    used = table[: table_size(candidates)]
    used[:] = 0
    characters = first = 0
    while candidates and first < found - n + 1:
        if recurring[first] and place_in(used, _joined(words, first, n))[1]:
            for word in range(first, first + n):
                characters += lengths[word]
            first += n
        else:
            first += 1
    return characters


@compiled
def _joined(words: Words, first: int, n: int) -> np.uint64:
    """The hash of `n` words joined without a space."""
    hashes, powers, _, _ = words
    value = np.uint64(0)
    for word in range(first, first + n):
        value = value * powers[word] + hashes[word]
    return value
