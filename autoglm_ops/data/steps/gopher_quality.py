"""Gopher's quality rules (Rae et al. 2021, "Scaling Language Models", appendix A1.1), decided as datatrove 0.10.1 decides them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from autoglm_ops.data.flow import Sifted, divide
from autoglm_ops.data.steps.characters import ALPHA, BREAK, CJK, SPACE, characters, code_at, width
from autoglm_ops.data.steps.compiled import compiled, flat
from autoglm_ops.data.steps.options import options
from autoglm_ops.data.steps.words import BASE, LETTERED, SOLID, Words, longest, read_words, room
from autoglm_ops.errors import SettingsError

MEASURES = (
    "words", "solid", "letters_in_solid", "lettered", "stop_words", "hashes", "ellipses", "lines", "bullets", "trailing", "alpha", "cjk",
)  # fmt: skip


@options
class GopherQuality:
    """Drops what is too short or long, has words of odd length, too many symbols, bullets or ellipses, or too little running text.

    A document whose letters are CJK for at least `cjk_share` is not judged: it has no words, and `CjkQuality` is for it. With None
    every document is judged, as datatrove does.
    """

    min_words: int = 50
    """Words that are more than punctuation."""
    max_words: int = 100_000
    min_mean_length: float = 3.0
    """Characters per word, over the words that are more than punctuation."""
    max_mean_length: float = 10.0
    max_symbols: float = 0.1
    """`#`, or ellipses, per word."""
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_lettered: float = 0.8
    """Share of words with a letter."""
    min_stop_words: int = 2
    """How many different ones of `stop_words`."""
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")
    cjk_share: float | None = 0.3

    name: ClassVar[str] = "gopher-quality"

    def __post_init__(self) -> None:
        if len(self.stop_words) > 64:
            raise SettingsError(f"gopher-quality.stop_words has {len(self.stop_words)} words; give at most 64")

    def __call__(self, frame: pl.DataFrame) -> Sifted:
        numbers = measure(frame["text"], self.stop_words)
        reason = numbers.select(self._reason().alias("reason"))["reason"]
        return divide(frame, pl.lit(reason))

    def _reason(self) -> pl.Expr:
        """The first rule that is broken, in datatrove's order."""
        words, lines, solid = (pl.col(name).clip(1) for name in ("words", "lines", "solid"))
        mean = pl.col("letters_in_solid") / solid
        rules = {
            "gopher-too-short": pl.col("solid") < self.min_words,
            "gopher-too-long": pl.col("solid") > self.max_words,
            "gopher-short-words": mean < self.min_mean_length,
            "gopher-long-words": mean > self.max_mean_length,
            "gopher-hashes": pl.col("hashes") / words > self.max_symbols,
            "gopher-ellipses": pl.col("ellipses") / words > self.max_symbols,
            "gopher-bullets": pl.col("bullets") / lines > self.max_bullet_lines,
            "gopher-trailing-ellipses": pl.col("trailing") / lines > self.max_ellipsis_lines,
            "gopher-few-letters": pl.col("lettered") / words < self.min_lettered,
            "gopher-few-stop-words": pl.col("stop_words") < self.min_stop_words,
        }
        first = pl.coalesce(pl.when(broken).then(pl.lit(word)) for word, broken in rules.items())
        return first if self.cjk_share is None else pl.when(~is_cjk(self.cjk_share)).then(first)


def is_cjk(share: float) -> pl.Expr:
    """Over `measure`: whether at least `share` of the letters are CJK. A text without letters is not."""
    return (pl.col("alpha") > 0) & (pl.col("cjk") >= share * pl.col("alpha"))


def cjk(texts: pl.Series, share: float) -> pl.Series:
    """`is_cjk` of each text, without the other counts: the steps of the two scripts ask for it to know which documents are theirs."""
    letters = _letters(*flat(texts), characters().flags)
    return pl.DataFrame(letters, schema={"alpha": pl.Int64, "cjk": pl.Int64}).select(is_cjk(share)).to_series()


def measure(texts: pl.Series, stop_words: tuple[str, ...] = ()) -> pl.DataFrame:
    """Int64 counts per text, one column for each of MEASURES.

    words, and of them solid (more than punctuation) with letters_in_solid characters, and lettered; different stop words (64 at
    most); `#` and ellipses (`...` or `…`); lines (`str.splitlines`), and of them bullets (begin with `•` or `-`) and trailing (end
    with an ellipsis); alpha and cjk: letters, and CJK ones.
    """
    data, offsets = flat(texts)
    known = np.array([_hash(word) for word in stop_words], np.uint64)
    return pl.DataFrame(_measure(data, offsets, characters().flags, known), schema=dict.fromkeys(MEASURES, pl.Int64))


def _hash(word: str) -> int:
    value = 0
    for char in word:
        value = (value * int(BASE) + ord(char) + 1) % 2**64
    return value


@compiled
def _measure(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], flags: NDArray[np.uint8], known: NDArray[np.uint64]
) -> NDArray[np.int64]:
    out = np.zeros((len(offsets) - 1, 12), np.int64)
    words = room(longest(offsets))
    for row in range(len(offsets) - 1):
        start, stop = offsets[row], offsets[row + 1]
        _count_words(words, read_words(data, start, stop, flags, 0, words), known, out[row])
        _count_lines(data, start, stop, flags, out[row])
    return out


@compiled
def _letters(data: NDArray[np.uint8], offsets: NDArray[np.int64], flags: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 [rows, 2]: letters, CJK letters."""
    out = np.zeros((len(offsets) - 1, 2), np.int64)
    for row in range(len(offsets) - 1):
        place, letters, cjk = offsets[row], 0, 0
        while place < offsets[row + 1]:
            flag = flags[code_at(data, place)]
            place += width(data[place])
            letters += flag & ALPHA != 0
            cjk += flag & CJK != 0
        out[row, 0], out[row, 1] = letters, cjk
    return out


@compiled
def _count_words(words: Words, found: int, known: NDArray[np.uint64], out: NDArray[np.int64]) -> None:
    hashes, _, lengths, kinds = words
    seen = np.uint64(0)
    out[0] = found
    for word in range(found):
        if kinds[word] & SOLID:
            out[1] += 1
            out[2] += lengths[word]
        if kinds[word] & LETTERED:
            out[3] += 1
        for place in range(len(known)):
            if hashes[word] == known[place]:
                seen |= np.uint64(1) << np.uint64(place)
    while seen:
        seen &= seen - np.uint64(1)
        out[4] += 1


@compiled
def _count_lines(data: NDArray[np.uint8], start: int, stop: int, flags: NDArray[np.uint8], out: NDArray[np.int64]) -> None:
    """One walk over the characters. `first` and `last` are a line's outer characters that are no space; `dots` the run that ends it."""
    first = last = dots = run = before = 0
    open_line = False
    place = start
    while place < stop:
        code = code_at(data, place)
        place += width(data[place])
        flag = flags[code]
        run = run + 1 if code == 46 else 0
        out[5] += code == 35
        out[6] += (run > 0 and run % 3 == 0) or code == 0x2026
        out[10] += flag & ALPHA != 0
        out[11] += flag & CJK != 0
        if flag & BREAK:
            if not (code == 10 and before == 13):
                _end_line(first, last, dots, out)
            first = last = dots = 0
        elif not flag & SPACE:
            first = first or code
            last, dots = code, run
        open_line = not flag & BREAK
        before = code
    if open_line:
        _end_line(first, last, dots, out)


@compiled
def _end_line(first: int, last: int, dots: int, out: NDArray[np.int64]) -> None:
    out[7] += 1
    out[8] += first == 0x2022 or first == 45
    out[9] += dots >= 3 or last == 0x2026
