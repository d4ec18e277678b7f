"""C4's rules (Raffel et al. 2020, section 2.2), decided line by line as datatrove 0.10.1 decides them."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from autoglm_ops.data.flow import Sifted, divide
from autoglm_ops.data.steps.characters import BREAK, DIGIT, SPACE, characters, code_at, strip, width
from autoglm_ops.data.steps.compiled import compiled, flat, unflat
from autoglm_ops.data.steps.gopher_quality import cjk
from autoglm_ops.data.steps.options import options

POLICY = ("terms of use", "privacy policy", "cookie policy", "uses cookies", "use of cookies", "use cookies")
_STAY, _LOREM, _BRACKET, _SHORT = range(4)
_PHRASES = tuple(np.frombuffer(phrase.encode(), np.uint8) for phrase in ("lorem ipsum", "javascript", *POLICY))
_PHRASE_BYTES = np.concatenate(_PHRASES)
_PHRASE_ENDS = np.cumsum([0, *map(len, _PHRASES)])
_EDIT = np.frombuffer(b"[edit]", np.uint8)
_NEEDED = np.frombuffer(b"[citation needed]", np.uint8)


@options
class C4:
    """Keeps the lines that end like a sentence, and drops documents with too few sentences left, `lorem ipsum`, or a curly bracket.

    A line goes when it does not end in `. ? ! " '`, ends in `...`, has fewer than `min_line_words` words or one of more than
    `max_word_length` characters, or has "javascript" or a phrase of cookie policies. Marks such as [12], [edit] and [citation needed]
    are cut out. A sentence ends with a run of `. ? ! 。 ！ ？`, closing quotes and brackets, and then white space or the line's end;
    what is left of a line is one more.
    """

    min_sentences: int = 5
    min_line_words: int = 3
    max_word_length: int = 1000
    cjk_share: float | None = 0.3
    """Documents whose letters are CJK for this share or more pass untouched. None: all are judged."""

    name: ClassVar[str] = "c4"

    def __call__(self, frame: pl.DataFrame) -> Sifted:
        texts = frame["text"]
        data, offsets = flat(texts)
        left, ends, verdicts = _clean(
            data, offsets, characters().flags, self.min_sentences, self.min_line_words, self.max_word_length
        )
        cleaned = unflat(left, ends)
        word = pl.Series(verdicts).replace_strict(
            {_STAY: None, _LOREM: "c4-lorem-ipsum", _BRACKET: "c4-curly-bracket", _SHORT: "c4-few-sentences"},
            return_dtype=pl.String,
        )
        if self.cjk_share is not None:
            other = cjk(texts, self.cjk_share)
            cleaned, word = texts.zip_with(other, cleaned), word.set(other, None)
        return divide(frame.with_columns(cleaned.alias("text")), pl.lit(word))


@compiled
def _clean(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], flags: NDArray[np.uint8], sentences: int, words: int, longest: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64]]:
    """The cleaned texts (bytes, offsets) and a verdict per row."""
    out, ends = np.empty(len(data), np.uint8), np.zeros(len(offsets), np.int64)
    verdicts = np.zeros(len(offsets) - 1, np.int64)
    line = np.empty(len(data) if len(offsets) < 2 else np.diff(offsets).max(), np.uint8)
    end = 0
    for row in range(len(offsets) - 1):
        begin, found = end, 0
        place, stop = offsets[row], offsets[row + 1]
        while place < stop and verdicts[row] == _STAY:
            after, following = _line_end(data, place, stop, flags)
            size, verdict = _line(data, place, after, flags, words, longest, line)
            place = following
            if verdict == _SHORT:
                continue
            verdicts[row] = verdict
            found += _sentences(line[:size], flags)
            if end > begin:
                out[end] = 10
                end += 1
            out[end : end + size] = line[:size]
            end += size
        if verdicts[row] == _STAY and found < sentences:
            verdicts[row] = _SHORT
        end = _settle(out, begin, end, flags) if verdicts[row] == _STAY else begin
        ends[row + 1] = end
    return out[:end], ends, verdicts


@compiled
def _settle(out: NDArray[np.uint8], begin: int, end: int, flags: NDArray[np.uint8]) -> int:
    """Strip the text that was written from `begin` on, where a mark cut out may have left a space; its new end."""
    start, stop = strip(out, begin, end, flags)
    for step in range(stop - start):
        out[begin + step] = out[start + step]
    return begin + stop - start


@compiled
def _line_end(data: NDArray[np.uint8], place: int, stop: int, flags: NDArray[np.uint8]) -> tuple[int, int]:
    """Where the line that begins at `place` ends, and where the next begins (`str.splitlines`)."""
    while place < stop:
        code = code_at(data, place)
        size = width(data[place])
        if flags[code] & BREAK:
            both = code == 13 and place + 1 < stop and data[place + 1] == 10
            return place, place + size + (1 if both else 0)
        place += size
    return stop, stop


@compiled
def _line(
    data: NDArray[np.uint8], start: int, stop: int, flags: NDArray[np.uint8], least: int, longest: int, line: NDArray[np.uint8]
) -> tuple[int, int]:
    """Copy a line without its marks into `line`: its size, and _STAY, _SHORT (the line goes), _LOREM or _BRACKET (the document goes)."""
    start, stop = strip(data, start, stop, flags)
    words, too_long = _words(data, start, stop, flags, longest)
    if too_long:
        return 0, _SHORT
    size = 0
    while start < stop:
        skip = _mark(data, start, stop, flags) if data[start] == 91 else 0
        if skip:
            start += skip
        else:
            line[size] = data[start]
            start += 1
            size += 1
    return size, _judge(line[:size], words >= least)


@compiled
def _judge(line: NDArray[np.uint8], enough: bool) -> int:
    size = len(line)
    last = line[size - 1] if size else 0
    if not (last == 46 or last == 63 or last == 33 or last == 34 or last == 39) or not enough:
        return _SHORT
    if size >= 3 and last == 46 and line[size - 2] == 46 and line[size - 3] == 46:
        return _SHORT
    phrase = _phrases(line)
    if phrase & 1:
        return _LOREM
    if phrase & 2:
        return _SHORT
    for byte in line:
        if byte == 123:
            return _BRACKET
    return _SHORT if phrase else _STAY


@compiled
def _words(data: NDArray[np.uint8], start: int, stop: int, flags: NDArray[np.uint8], longest: int) -> tuple[int, bool]:
    words = inside = 0
    while start < stop:
        inside = 0 if flags[code_at(data, start)] & SPACE else inside + 1
        words += inside == 1
        if inside > longest:
            return words, True
        start += width(data[start])
    return words, False


@compiled
def _mark(data: NDArray[np.uint8], start: int, stop: int, flags: NDArray[np.uint8]) -> int:
    """Bytes of the mark that begins with the bracket at `start`: [digits], [edit] or [citation needed]; 0 when it is none."""
    for word in (_EDIT, _NEEDED):
        if stop - start >= len(word) and np.array_equal(data[start : start + len(word)], word):
            return len(word)
    place = start + 1
    while place < stop and flags[code_at(data, place)] & DIGIT:
        place += width(data[place])
    return place + 1 - start if place < stop and data[place] == 93 else 0


@compiled
def _phrases(line: NDArray[np.uint8]) -> int:
    """Bit k for each phrase k that is in the line, in any case."""
    found = 0
    for place in range(len(line)):
        first = line[place] | 0x20
        if first != 108 and first != 106 and first != 116 and first != 112 and first != 99 and first != 117:
            continue
        for phrase in range(len(_PHRASE_ENDS) - 1):
            begin, end = _PHRASE_ENDS[phrase], _PHRASE_ENDS[phrase + 1]
            if first == _PHRASE_BYTES[begin] and _matches(line, place, begin, end):
                found |= 1 << phrase
    return found


@compiled
def _matches(line: NDArray[np.uint8], place: int, begin: int, end: int) -> bool:
    if place + end - begin > len(line):
        return False
    for step in range(end - begin):
        byte = line[place + step]
        if (byte + 32 if 65 <= byte <= 90 else byte) != _PHRASE_BYTES[begin + step]:
            return False
    return True


@compiled
def _sentences(line: NDArray[np.uint8], flags: NDArray[np.uint8]) -> int:
    """State 0: nothing yet; 1: inside a sentence; 2: after its end marks; 3: after closing marks behind them."""
    count = state = place = 0
    while place < len(line):
        code = code_at(line, place)
        place += width(line[place])
        if flags[code] & SPACE:
            count += state >= 2
            state = 0 if state >= 2 else state
        elif _ends(code):
            state = 2
        elif state >= 2 and _closes(code):
            state = 3
        else:
            state = 1
    return count + (state > 0)


@compiled
def _ends(code: int) -> bool:
    return code == 46 or code == 63 or code == 33 or code == 0x3002 or code == 0xFF01 or code == 0xFF1F


@compiled
def _closes(code: int) -> bool:
    return code == 34 or code == 39 or code == 41 or code == 93 or code == 0x201D or code == 0x2019
