"""Quality rules for Chinese, Japanese and Korean text: Gopher's and C4's ideas, counted in characters.

Thresholds come from FineWeb2's for Chinese (huggingface/fineweb-2, configs/cmn_Hani.yml) where it has the rule, else from Gopher's;
`min_characters` is ours: short reviews are good data, and 10 characters is where the bundled ones begin to say something.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from autoglm_ops.data.flow import Sifted, divide
from autoglm_ops.data.steps.characters import BREAK, PUNCTUATION, SPACE, WORD, characters, code_at, width
from autoglm_ops.data.steps.compiled import compiled, flat
from autoglm_ops.data.steps.gopher_quality import is_cjk, measure
from autoglm_ops.data.steps.options import options


@options
class CjkQuality:
    """Drops CJK text that is too short or long, or made of symbols, bullets, cut-off lines or unpunctuated scraps."""

    min_characters: int = 10
    """Letters and digits."""
    max_characters: int = 200_000
    min_letters: float = 0.6
    """Letters and digits among the characters that are no space."""
    max_symbols: float = 0.1
    """`#` and ellipses per letter or digit."""
    max_bullet_lines: float = 0.9
    max_ellipsis_lines: float = 0.3
    min_punctuated_lines: float = 0.106
    """Lines that end with a sentence's end, of texts with more than `few_lines` lines (FineWeb2: line_punct_thr)."""
    few_lines: int = 3
    max_punctuation: float = 0.4
    """Punctuation among the characters that are no space."""
    cjk_share: float = 0.3
    """Only documents whose letters are CJK for this share or more are judged; `GopherQuality` has the others."""

    name: ClassVar[str] = "cjk-quality"

    def __call__(self, frame: pl.DataFrame) -> Sifted:
        texts = frame["text"]
        counts = pl.DataFrame(
            _count(*flat(texts), characters().flags),
            schema=dict.fromkeys(("word", "marks", "seen", "filled", "ended"), pl.Int64),
        )
        reason = pl.concat([measure(texts), counts], how="horizontal").select(self._reason().alias("reason"))
        return divide(frame, pl.lit(reason.to_series()))

    def _reason(self) -> pl.Expr:
        word, seen, lines = (pl.col(name).clip(1) for name in ("word", "seen", "lines"))
        rules = {
            "cjk-too-short": pl.col("word") < self.min_characters,
            "cjk-too-long": pl.col("word") > self.max_characters,
            "cjk-few-letters": pl.col("word") / seen < self.min_letters,
            "cjk-punctuation": pl.col("marks") / seen > self.max_punctuation,
            "cjk-symbols": (pl.col("hashes") + pl.col("ellipses")) / word > self.max_symbols,
            "cjk-bullets": pl.col("bullets") / lines > self.max_bullet_lines,
            "cjk-trailing-ellipses": pl.col("trailing") / lines > self.max_ellipsis_lines,
            "cjk-unpunctuated": (pl.col("filled") > self.few_lines)
            & (pl.col("ended") < self.min_punctuated_lines * pl.col("filled")),
        }
        first = pl.coalesce(pl.when(broken).then(pl.lit(word)) for word, broken in rules.items())
        return pl.when(is_cjk(self.cjk_share)).then(first)


@compiled
def _count(data: NDArray[np.uint8], offsets: NDArray[np.int64], flags: NDArray[np.uint8]) -> NDArray[np.int64]:
    """int64 [rows, 5]: letters and digits; punctuation; characters that are no space; lines with one; those that end like a sentence."""
    out = np.zeros((len(offsets) - 1, 5), np.int64)
    for row in range(len(offsets) - 1):
        place, last = offsets[row], 0
        while place < offsets[row + 1]:
            code = code_at(data, place)
            flag = flags[code]
            place += width(data[place])
            if not flag & SPACE:
                last = code
                out[row, 0] += flag & WORD != 0
                out[row, 1] += flag & PUNCTUATION != 0
                out[row, 2] += 1
            if last and (flag & BREAK or place == offsets[row + 1]):
                out[row, 3] += 1
                out[row, 4] += _is_end(last)
                last = 0
    return out


@compiled
def _is_end(code: int) -> bool:
    """。 ！ ？ ； … ～ or . ! ? or a closing quote or bracket behind them."""
    wide = code == 0x3002 or code == 0xFF01 or code == 0xFF1F or code == 0xFF1B or code == 0x2026 or code == 0xFF5E
    closing = code == 0x201D or code == 0x300D or code == 0x300F or code == 0xFF09 or code == 34
    return wide or closing or code == 46 or code == 33 or code == 63
