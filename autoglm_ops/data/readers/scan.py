"""Strict JSON at compiled speed: every line of a block, checked byte by byte, its wanted values copied out unescaped.

What is accepted here `strict.parse` and `fields.to_row` accept too, with the same values (a property test holds it); whatever is bad,
rare or doubtful is left to them, line by line: a wrong byte, NUL, a lone surrogate, a number that may overflow, a key that may occur
twice, deep nesting. So there is one judge, and this is its fast lane.

No library at hand does this: simd-json (polars) and orjson take duplicate keys, pyarrow.json merges types over lines.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

MISSING, NULL, STRING, INTEGER, BOOLEAN, OTHER = range(6)
MAX_DEPTH, MAX_KEYS, MAX_NUMBER = 32, 256, 200  # beyond: the strict parser's business

_PLAIN = np.array([32 <= byte < 128 and byte not in b'"\\' for byte in range(256)])
_SPACE = np.array([byte in b" \t\r" for byte in range(256)])
_ESCAPES = np.zeros(256, np.uint8)
for _letter, _byte in zip(b'"\\/bfnrt', b'"\\/\b\f\n\r\t', strict=True):
    _ESCAPES[_letter] = _byte
_HEX = np.full(256, -1, np.int64)
for _digit, _letter in enumerate(b"0123456789abcdef"):
    _HEX[_letter] = _HEX[bytes([_letter]).upper()[0]] = _digit


class Scanned(NamedTuple):
    """The lines of a block. `good[n]`: line n is an object whose wanted values are in `values`, of the `kinds` [column, line].

    Column c, line n is values[c, ends[c, n] : ends[c, n + 1]], UTF-8; empty where the kind has no text. `starts` has one more entry
    than there are lines, the block's end.
    """

    good: NDArray[np.bool_]
    starts: NDArray[np.int64]
    kinds: NDArray[np.uint8]
    ends: NDArray[np.int64]
    values: NDArray[np.uint8]


class _Wanted(NamedTuple):
    """Column c is called keys[bounds[c]:bounds[c + 1]]."""

    keys: NDArray[np.uint8]
    bounds: NDArray[np.int64]


class _Room(NamedTuple):
    """What is known within a line: a hash per key so far, where the keys of each open object begin, what is open, and, over all
    lines, how much of each row of values is used (the last row's entry stays 0: it is written over and over)."""

    hashes: NDArray[np.uint64]
    base: NDArray[np.int64]
    is_object: NDArray[np.bool_]
    used: NDArray[np.int64]


def scan(data: bytes, columns: tuple[str, ...]) -> Scanned:
    """Look at every line of `data` (its last byte is LF) for the top-level keys `columns` (distinct)."""
    count, wide = data.count(b"\n"), len(columns)
    names = [name.encode() for name in columns]
    out = Scanned(
        np.zeros(count, np.bool_),
        np.zeros(count + 1, np.int64),
        np.zeros((wide, count), np.uint8),
        np.zeros((wide, count + 1), np.int64),
        np.empty((wide + 1, len(data)), np.uint8),  # the last row takes what nobody wants
    )
    room = _Room(
        np.zeros(MAX_KEYS, np.uint64),
        np.zeros(MAX_DEPTH, np.int64),
        np.zeros(MAX_DEPTH, np.bool_),
        np.zeros(wide + 1, np.int64),
    )
    wanted = _Wanted(np.frombuffer(b"".join(names), np.uint8), np.cumsum([0, *map(len, names)]))
    _scan(np.frombuffer(data, np.uint8), wanted, out, room)
    return out


def _compiled(function: Any) -> Any:
    """Compiled on first use, and kept beside the module."""
    return njit(cache=True, nogil=True)(function)


@_compiled
def _scan(data: Any, wanted: Any, out: Any, room: Any) -> None:
    at = 0
    for line in range(out.good.size):
        out.starts[line] = at
        end = _object(data, at, line, wanted, out, room)
        out.good[line] = end > 0
        if end > 0:
            at = end
        else:
            while data[at] != 10:
                at += 1
            at += 1
        for column in range(out.kinds.shape[0]):
            if end < 0:
                room.used[column] = out.ends[column, line]
                out.kinds[column, line] = 0
            out.ends[column, line + 1] = room.used[column]
    out.starts[out.good.size] = at


@_compiled
def _object(data: Any, at: int, line: int, wanted: Any, out: Any, room: Any) -> int:
    """The place after the line whose object starts at `at`, -1 when it is not for us. Never reads beyond the line's LF.

    `state`: what may come. 0 a first key or }, 1 a key, 2 a value, 3 a comma or an end, 4 a first value or ].
    """
    values, is_object, base = out.values, room.is_object, room.base
    waste = values.shape[0] - 1
    depth, count, state, column = 0, 0, 0, waste
    at = _spaces(data, at) + 1
    if data[at - 1] != 123:
        return -1
    is_object[0], base[0] = True, 0
    while True:
        at = _spaces(data, at)
        byte = data[at]
        if state <= 1 and byte == 34 and count < MAX_KEYS:
            at, column = _key(data, at + 1, wanted, values[waste], room.hashes, base[depth], count)
            if at < 0:
                return -1
            count, state = count + 1, 2
        elif (state == 0 or state == 3 or state == 4) and byte == (125 if is_object[depth] else 93):
            count = base[depth]
            depth, at, state = depth - 1, at + 1, 3
            if depth < 0:
                at = _spaces(data, at)
                return at + 1 if data[at] == 10 else -1
        elif state == 3 and byte == 44:
            at, state = at + 1, 1 if is_object[depth] else 2
        elif (state == 2 or state == 4) and (byte == 123 or byte == 91) and depth < MAX_DEPTH - 1:
            if depth == 0 and column < waste:
                out.kinds[column, line] = 5
            depth, at, state = depth + 1, at + 1, 0 if byte == 123 else 4
            is_object[depth], base[depth] = byte == 123, count
        elif state == 2 or state == 4:
            row = column if depth == 0 else waste
            at, stop, kind = _scalar(data, at, values[row], room.used[row])
            if at < 0:
                return -1
            if row < waste:
                out.kinds[row, line], room.used[row] = kind, stop
            state = 3
        else:
            return -1


@_compiled
def _key(data: Any, at: int, wanted: Any, text: Any, hashes: Any, base: int, count: int) -> tuple[int, int]:
    """The place after a key and its colon, and which wanted column it names; -1 as the place of one that is bad or there already."""
    at, length = _string(data, at, text, 0)
    if at < 0:
        return -1, 0
    hashes[count] = _hash(text, length)
    for other in range(base, count):
        if hashes[other] == hashes[count]:  # the same key, or (once in 2**64) one that looks like it
            return -1, 0
    at = _spaces(data, at)
    return (at + 1 if data[at] == 58 else -1), _which(text, length, wanted.keys, wanted.bounds)


@_compiled
def _scalar(data: Any, at: int, out: Any, begin: int) -> tuple[int, int, int]:
    """The place after a string, a number or a word, where its text ends in `out`, and its kind; -1 as the place of a bad one."""
    byte = data[at]
    if byte == 34:
        at, stop = _string(data, at + 1, out, begin)
        return at, stop, 2
    if byte == 110 and data[at + 1] == 117 and data[at + 2] == 108 and data[at + 3] == 108:
        return at + 4, begin, 1
    start, kind = at, 4
    if byte == 116 and data[at + 1] == 114 and data[at + 2] == 117 and data[at + 3] == 101:
        at += 4
    elif byte == 102 and data[at + 1] == 97 and data[at + 2] == 108 and data[at + 3] == 115 and data[at + 4] == 101:
        at += 5
    else:
        at, kind = _number(data, at)
        if at < 0 or kind == 5:
            return at, begin, kind
    for place in range(start, at):
        out[begin + place - start] = data[place]
    return at, begin + at - start, kind


@_compiled
def _number(data: Any, at: int) -> tuple[int, int]:
    """The place after a number, and whether it is an integer or another. Exponents have two digits at most: the rest may overflow."""
    start, kind = at, 3
    if data[at] == 45:
        at += 1
    digits = _digits(data, at)
    if digits == at or (data[at] == 48 and (digits - at > 1 or at > start)):  # none, 007, or -0 (which is 0)
        return -1, 5
    at = digits
    if data[at] == 46:
        kind, digits = 5, _digits(data, at + 1)
        if digits == at + 1:
            return -1, 5
        at = digits
    if data[at] == 101 or data[at] == 69:
        at += 1
        if data[at] == 43 or data[at] == 45:
            at += 1
        kind, digits = 5, _digits(data, at)
        if digits == at or digits - at > 2:
            return -1, 5
        at = digits
    return (at if at - start <= MAX_NUMBER else -1), kind


@_compiled
def _digits(data: Any, at: int) -> int:
    while 48 <= data[at] <= 57:
        at += 1
    return at


@_compiled
def _spaces(data: Any, at: int) -> int:
    while _SPACE[data[at]]:
        at += 1
    return at


@_compiled
def _string(data: Any, at: int, out: Any, stop: int) -> tuple[int, int]:
    """Copy the string that starts at `at`, after its quote, unescaped to out[stop:]. The place after it (-1: bad) and its new end."""
    while True:
        start = at
        while _PLAIN[data[at]]:
            at += 1
        out[stop : stop + at - start] = data[start:at]
        stop += at - start
        byte = data[at]
        if byte == 34:
            return at + 1, stop
        if byte == 92:
            at, stop = _escape(data, at + 1, out, stop)
        elif byte >= 128:
            at, stop = _wide(data, at, out, stop)
        else:
            return -1, stop
        if at < 0:
            return -1, stop


@_compiled
def _escape(data: Any, at: int, out: Any, stop: int) -> tuple[int, int]:
    """After a backslash."""
    if _ESCAPES[data[at]]:
        out[stop] = _ESCAPES[data[at]]
        return at + 1, stop + 1
    code = _hex4(data, at + 1) if data[at] == 117 else -1
    at += 5
    if 0xD800 <= code < 0xDC00 and data[at] == 92 and data[at + 1] == 117:
        low = _hex4(data, at + 2)
        if not 0xDC00 <= low < 0xE000:
            return -1, stop
        code = 0x10000 + ((code - 0xD800) << 10) + low - 0xDC00
        at += 6
    if code <= 0 or 0xD800 <= code < 0xE000:
        return -1, stop
    return at, _encode(code, out, stop)


@_compiled
def _hex4(data: Any, at: int) -> int:
    value = 0
    for place in range(at, at + 4):
        digit = _HEX[data[place]]
        if digit < 0:  # stops at the line's end too: LF is no digit
            return -1
        value = value * 16 + digit
    return value


@_compiled
def _encode(code: int, out: Any, stop: int) -> int:
    """A code point as UTF-8."""
    if code < 0x80:
        out[stop] = code
        return stop + 1
    if code < 0x800:
        out[stop] = 0xC0 | code >> 6
        out[stop + 1] = 0x80 | code & 63
        return stop + 2
    if code < 0x10000:
        out[stop] = 0xE0 | code >> 12
        out[stop + 1] = 0x80 | code >> 6 & 63
        out[stop + 2] = 0x80 | code & 63
        return stop + 3
    out[stop] = 0xF0 | code >> 18
    out[stop + 1] = 0x80 | code >> 12 & 63
    out[stop + 2] = 0x80 | code >> 6 & 63
    out[stop + 3] = 0x80 | code & 63
    return stop + 4


@_compiled
def _wide(data: Any, at: int, out: Any, stop: int) -> tuple[int, int]:
    """Copy a run of characters beyond ASCII, if they are UTF-8 by RFC 3629: nothing overlong, no surrogates, none above U+10FFFF."""
    while data[at] >= 128:
        first, second = data[at], data[at + 1]
        if first < 0xC2 or first > 0xF4 or not 0x80 <= second < 0xC0:
            return -1, stop
        more = 0 if first < 0xE0 else 1 if first < 0xF0 else 2
        if (
            (first == 0xE0 and second < 0xA0)
            or (first == 0xED and second >= 0xA0)
            or (first == 0xF0 and second < 0x90)
            or (first == 0xF4 and second >= 0x90)
        ):
            return -1, stop
        out[stop], out[stop + 1] = first, second
        at += 2
        stop += 2
        for _ in range(more):
            if not 0x80 <= data[at] < 0xC0:
                return -1, stop
            out[stop] = data[at]
            at += 1
            stop += 1
    return at, stop


@_compiled
def _hash(text: Any, length: int) -> Any:
    """FNV-1a."""
    value = np.uint64(14695981039346656037)
    for place in range(length):
        value = (value ^ np.uint64(text[place])) * np.uint64(1099511628211)
    return value


@_compiled
def _which(text: Any, length: int, keys: Any, bounds: Any) -> int:
    """The wanted column with this name, or the one past the last."""
    for column in range(bounds.size - 1):
        if bounds[column + 1] - bounds[column] == length:
            place = 0
            while place < length and text[place] == keys[bounds[column] + place]:
                place += 1
            if place == length:
                return column
    return int(bounds.size - 1)
