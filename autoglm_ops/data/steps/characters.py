"""What each code point is: one flag byte and one lower-case code point per character, as Python's own `str` methods have it."""

from __future__ import annotations

import string
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from autoglm_ops.data.steps.compiled import compiled

SPACE, ALPHA, PUNCTUATION, BREAK, DIGIT, CJK, WORD, HAN = 1, 2, 4, 8, 16, 32, 64, 128
LIMIT = 0x110000

# Beside ASCII punctuation, controls and sentence ends: the characters that datatrove 0.10.1 counts as symbols (its PUNCTUATION).
_TYPOGRAPHIC = "«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"
# Sentence_Terminal of Unicode 15 beyond ASCII, as (first, last) code points.
_TERMINAL = (
    "589 61d-61f 6d4 700-702 7f9 837 839 83d-83e 964-965 104a-104b 1362 1367-1368 166e 1735-1736 17d4-17d6 17d9-17da 1803 1809 "
    "1944-1945 1aa8-1aab 1b5a-1b5b 1b5e-1b5f 1b7d-1b7e 1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 2e2e 2e3c 2e53-2e54 3002 a4ff "
    "a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 aa5d-aa5f aaf0-aaf1 abeb fe52 fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57 "
    "10f55-10f59 10f86-10f89 11047-11048 110be-110c1 11141-11143 111c5-111c6 111cd 111de-111df 11238-11239 1123b-1123c 112a9 "
    "1144b-1144c 115c2-115c3 115c9-115d7 11641-11642 1173c-1173e 11944 11946 11a42-11a43 11a9b-11a9c 11c41-11c42 11ef7-11ef8 "
    "11f43-11f44 16a6e-16a6f 16af5 16b37-16b38 16b44 16e98 1bc9f 1da88"
)
_HAN = ((0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x323AF), (0x3005, 0x3007))
_OTHER_CJK = ((0x3040, 0x30FF), (0x31F0, 0x31FF), (0xFF66, 0xFF9F), (0x1100, 0x11FF), (0xAC00, 0xD7AF))


class Characters(NamedTuple):
    """By code point: `flags` uint8 [0x110000] of the bits above, `lower` int32 [0x110000]."""

    flags: NDArray[np.uint8]
    lower: NDArray[np.int32]


@lru_cache(maxsize=1)
def characters() -> Characters:
    """The tables, built once a process in about half a second. WORD: a letter or digit. CJK: a Han, kana or hangul letter."""
    everything = [chr(code) for code in range(LIMIT)]
    flags = np.zeros(LIMIT, np.uint8)
    for bit, test in ((SPACE, str.isspace), (ALPHA, str.isalpha), (DIGIT, str.isdecimal), (WORD, str.isalnum)):
        flags[np.fromiter(map(test, everything), np.bool_, LIMIT)] |= bit
    for bit, members in ((PUNCTUATION, _punctuation()), (BREAK, "\n\x0b\x0c\r\x1c\x1d\x1e\x85\u2028\u2029")):
        flags[[ord(char) for char in members]] |= bit
    for first, last in (*_HAN, *_OTHER_CJK):
        flags[first : last + 1] |= np.where(flags[first : last + 1] & WORD, CJK, 0).astype(np.uint8)
    for first, last in _HAN:
        flags[first : last + 1] |= HAN
    lower = np.fromiter((ord(low) if len(low := char.lower()) == 1 else ord(char) for char in everything), np.int32, LIMIT)
    return Characters(flags, lower)


def _punctuation() -> str:
    controls = "".join(map(chr, [*range(9), *range(11, 32), *range(127, 160)]))
    return string.punctuation + controls + _TYPOGRAPHIC + "".join(map(chr, _ranges(_TERMINAL)))


def _ranges(text: str) -> list[int]:
    pairs = [(part + "-" + part).split("-")[:2] for part in text.split()]
    return [code for first, last in pairs for code in range(int(first, 16), int(last, 16) + 1)]


@compiled
def width(byte: int) -> int:
    """Bytes of the UTF-8 character that begins with `byte`."""
    if byte < 0xC0:
        return 1
    if byte < 0xE0:
        return 2
    return 3 if byte < 0xF0 else 4


@compiled
def code_at(data: NDArray[np.uint8], place: int) -> int:
    """The code point that begins at `place` of valid UTF-8."""
    first = int(data[place])
    if first < 0x80:
        return first
    if first < 0xE0:
        return (first & 0x1F) << 6 | _tail(data, place + 1)
    if first < 0xF0:
        return (first & 0x0F) << 12 | _tail(data, place + 1) << 6 | _tail(data, place + 2)
    return (first & 0x07) << 18 | _tail(data, place + 1) << 12 | _tail(data, place + 2) << 6 | _tail(data, place + 3)


@compiled
def _tail(data: NDArray[np.uint8], place: int) -> int:
    return int(data[place]) & 0x3F


@compiled
def strip(data: NDArray[np.uint8], start: int, stop: int, flags: NDArray[np.uint8]) -> tuple[int, int]:
    """`str.strip`: where the text between `start` and `stop` begins and ends without white space."""
    while start < stop and flags[code_at(data, start)] & SPACE:
        start += width(data[start])
    while start < stop:
        last = stop - 1
        while data[last] & 0xC0 == 0x80:
            last -= 1
        if not flags[code_at(data, last)] & SPACE:
            break
        stop = last
    return start, stop


@compiled
def length(data: NDArray[np.uint8], start: int, stop: int) -> int:
    """Characters between two places."""
    count = 0
    for place in range(start, stop):
        count += data[place] & 0xC0 != 0x80
    return count
