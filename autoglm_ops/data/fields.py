"""One foreign record to one Row: which values a text, a label, a timestamp and an id may be."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, date, datetime
from functools import lru_cache
from typing import Any

from autoglm_ops.data.rows import BadLineError, Row, Shape, row_id

MAX_NAME = 256  # characters of an id, a label or a source


def to_row(record: Mapping[str, Any], shape: Shape, name: str, line: int) -> Row:
    """The Row in `record`, line `line` of file `name`. Raises BadLineError: missing-column, wrong-type, not-a-number, lone-surrogate, …

    A null text, label or timestamp is a row all the same: nulls are `validate`'s to judge.
    """
    columns = shape.columns
    for needed in ("text", "label"):
        if columns[needed] not in record:
            raise BadLineError("missing-column")
    text = record[columns["text"]]
    if text is not None and not isinstance(text, str):
        raise BadLineError("wrong-type")
    given = record.get(columns["timestamp"])
    return Row(
        id=_name(record.get(columns["id"])) or row_id(name, line),
        text=_sound(text),
        label=_name(record[columns["label"]]),
        timestamp=shape.epoch.isoformat() if given in (None, "") else day_of(given),
        source=_name(record.get(columns["source"])) or name,
        line=line,
    )


def day_of(value: Any) -> str:
    """The ISO day of a date, a datetime (in UTC) or an ISO string of either; anything else comes back as the text it is."""
    if isinstance(value, datetime):
        return (value.astimezone(UTC) if value.tzinfo else value).date().isoformat()
    if isinstance(value, date):
        return value.isoformat()
    return _parse_day(value) if isinstance(value, str) else str(value)[:MAX_NAME]


def is_day(text: str) -> bool:
    """Whether `text` is an ISO day such as 2026-01-31."""
    return len(text) == 10 and text[4] == "-" and _parse_day(text) == text and _is_date(text)


@lru_cache(maxsize=4096)
def _parse_day(text: str) -> str:
    try:
        return day_of(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return (_sound(text) or "")[:MAX_NAME]


@lru_cache(maxsize=4096)
def _is_date(text: str) -> bool:
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _name(value: Any) -> str | None:
    """An id, a label or a source as text. Whole floats are integers: that is how a column with a hole stores them."""
    if value is None or isinstance(value, str):
        text = _sound(value)
    elif isinstance(value, bool):
        text = str(value).lower()
    elif isinstance(value, float):
        text = _whole(value)
    elif isinstance(value, int):
        text = str(value)
    else:
        raise BadLineError("wrong-type")
    if text is not None and len(text) > MAX_NAME:
        raise BadLineError("name-too-long")
    return text.strip() if text else text


def _whole(value: float) -> str:
    if not math.isfinite(value):
        raise BadLineError("not-a-number")
    if value != int(value):
        raise BadLineError("wrong-type")
    return str(int(value))


def _sound(text: str | None) -> str | None:
    """`text`, which must be writable as UTF-8 and hold no NUL: both crash readers further down (threats F01)."""
    if text is None:
        return None
    if "\x00" in text:
        raise BadLineError("nul-character")
    if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
        raise BadLineError("lone-surrogate")
    return text
