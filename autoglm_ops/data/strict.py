"""A line as a strict JSON object, or the reason word why it is none."""

from __future__ import annotations

from typing import Any

from autoglm_ops import strict
from autoglm_ops.data.rows import BadLineError


def parse(raw: bytes) -> dict[str, Any]:
    """The JSON object in `raw`. Raises BadLineError whose message is the reason word."""
    try:
        value = strict.parse(raw)
    except strict.NotStrictError as error:
        raise BadLineError("blank-line" if error.word == "blank" else error.word) from error
    if not isinstance(value, dict):
        raise BadLineError("not-an-object")
    return value
