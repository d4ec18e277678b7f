"""JSON as the standard has it. `json.loads` also takes NaN, 1e999, a key twice, UTF-16 and lone surrogates (threats F01, F04, F05)."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

MAX_DEPTH = 64
MAX_DIGITS = 4000


class NotStrictError(ValueError):
    """`word` can be counted: blank, bad-utf8, too-deep, bad-json, duplicate-key, not-a-number or number-too-long. The message says more."""

    def __init__(self, word: str, message: str) -> None:
        super().__init__(message)
        self.word = word


def parse(raw: bytes) -> Any:
    """The JSON value in `raw`. Raises NotStrictError. A string may still hold half of a surrogate pair, by an escape."""
    if not raw.strip():
        raise NotStrictError("blank", "there is nothing")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise NotStrictError("bad-utf8", f"not UTF-8 at byte {error.start}") from error
    if _depth(text) > MAX_DEPTH:
        raise NotStrictError("too-deep", f"nested deeper than {MAX_DEPTH}")
    try:
        return json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float, parse_int=_int)
    except json.JSONDecodeError as error:
        raise NotStrictError("bad-json", f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}") from error


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise NotStrictError("duplicate-key", "a key stands twice in one object; which one counts is anyone's guess")
    return mapping


def _constant(name: str) -> NoReturn:
    raise NotStrictError("not-a-number", f"{name} is not JSON; numbers are finite")


def _float(text: str) -> float:
    _short(text)
    value = float(text)
    if not math.isfinite(value):
        raise NotStrictError("not-a-number", f"{text[:20]} is beyond what a number can hold")
    return value


def _int(text: str) -> int:
    _short(text)
    return int(text)


def _short(text: str) -> None:
    if len(text) > MAX_DIGITS:
        raise NotStrictError("number-too-long", f"a number has more than {MAX_DIGITS} digits")


def _depth(text: str) -> int:
    """The deepest nesting outside strings. Most lines have too few brackets to be worth the walk."""
    if text.count("[") + text.count("{") <= MAX_DEPTH:
        return 0
    depth = deepest = 0
    inside = escaped = False
    for char in text:
        if escaped:
            escaped = False
        elif char == "\\":
            escaped = inside
        elif char == '"':
            inside = not inside
        elif not inside and char in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif not inside and char in "]}":
            depth -= 1
    return deepest
