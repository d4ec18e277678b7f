"""Unicode and white space: one form for what looks the same, so that rules, hashes and tokenizers see it as the same."""

from __future__ import annotations

from typing import ClassVar, Literal

import polars as pl

from autoglm_ops.data.flow import Sifted, divide
from autoglm_ops.data.steps.options import options

# Controls but LF and TAB, the byte order mark, and the replacement of what could not be decoded.
_CONTROLS = r"[\x00-\x08\x0E-\x1F\x7F-\x84\x86-\x9F\uFEFF\uFFFD]"
_BREAKS = r"\r\n|[\r\x0B\x0C\x1C-\x1E\x85\u2028\u2029]"
_WIDE = "[\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000]"  # the other spaces of Unicode (Zs), spelled out: the class is slower
_SPACES = r"[ \t]{2,}|\t"


@options
class Normalise:
    """Unicode form, one kind of line break, single spaces, no control characters, at most one blank line together.

    Drops `too-long` before any work on the text, since NFKC makes one character up to 18 (U+FDFA; threats F05), and `empty` after it.
    """

    form: Literal["NFC", "NFKC", "none"] = "NFC"
    """NFC keeps what was written; NFKC also folds full-width letters and ligatures, and loses superscripts."""
    max_characters: int = 1_000_000

    name: ClassVar[str] = "normalise"

    def __call__(self, frame: pl.DataFrame) -> Sifted:
        fitting, long = divide(frame, _when(pl.col("text").str.len_chars() > self.max_characters, "too-long"))
        cleaned = fitting.with_columns(normalised(fitting["text"], self.form))
        kept, empty = divide(cleaned, _when(pl.col("text").fill_null("") == "", "empty"))
        return Sifted(kept, pl.concat([long, empty]))


def normalised(texts: pl.Series, form: Literal["NFC", "NFKC", "none"]) -> pl.Series:
    """`texts` in that form. A text that needs nothing costs one look: each rewrite runs on the texts that ask for it."""
    texts = texts.clone()  # `scatter` writes in place
    if form != "none":
        texts = _where(texts, texts.str.len_bytes() != texts.str.len_chars(), pl.col("t").str.normalize(form))
    texts = _where(texts, texts.str.contains(_BREAKS), pl.col("t").str.replace_all(_BREAKS, "\n"))
    texts = _where(texts, texts.str.contains(_CONTROLS), pl.col("t").str.replace_all(_CONTROLS, ""))
    texts = _where(texts, texts.str.contains(_WIDE), pl.col("t").str.replace_all(_WIDE, " "))
    texts = _where(texts, texts.str.contains(_SPACES), pl.col("t").str.replace_all(_SPACES, " "))
    texts = _where(texts, texts.str.contains(r" \n|\n |\n\n\n"), pl.col("t").str.replace_all(r" ?\n ?", "\n"))
    texts = _where(texts, texts.str.contains("\n\n\n", literal=True), pl.col("t").str.replace_all(r"\n{3,}", "\n\n"))
    return texts.str.strip_chars()


def _where(texts: pl.Series, needed: pl.Series, change: pl.Expr) -> pl.Series:
    needed = needed.fill_null(False)
    if not needed.any():
        return texts
    places = needed.arg_true()
    return texts.scatter(places, texts.gather(places).to_frame("t").select(change).to_series())


def _when(condition: pl.Expr, word: str) -> pl.Expr:
    return pl.when(condition).then(pl.lit(word))
