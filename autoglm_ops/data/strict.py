"""JSON as the standard has it. `json.loads` also takes NaN, 1e999, a key twice, UTF-16 and lone surrogates (threats F01, F04, F05)."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from autoglm_ops.data.rows import BadLineError

MAX_DEPTH = 64
MAX_DIGITS = 4000


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises BadLineError whose message is the reason word."""
    if not raw.strip():
        raise BadLineError("blank-line")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadLineError("bad-utf8") from error
    if _depth(text) > MAX_DEPTH:
        raise BadLineError("too-deep")
    try:
        value = json.loads(text, object_pairs_hook=_pairs, parse_constant=_constant, parse_float=_float, parse_int=_int)
    except json.JSONDecodeError as error:
        raise BadLineError("bad-json") from error
    if not isinstance(value, dict):
        raise BadLineError("not-an-object")
    return value


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) != len(pairs):
        raise BadLineError("duplicate-key")
    return mapping


def _constant(_: str) -> NoReturn:
    raise BadLineError("not-a-number")


def _float(text: str) -> float:
    if len(text) > MAX_DIGITS:
        raise BadLineError("number-too-long")
    value = float(text)
    if not math.isfinite(value):
        raise BadLineError("not-a-number")
    return value


def _int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise BadLineError("number-too-long")
    return int(text)


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
