"""What a reader yields: a whole row, or a line that was turned away with a reason word that can be counted."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

RAW_CHARS = 1000  # what rejects.jsonl keeps of a bad line: enough to recognise it, never a flood


class Row(NamedTuple):
    """One labelled text. `timestamp` is an ISO day, or what stood there when it is none (`validate` quarantines it then).

    `line` is the 1-based physical line (for Parquet the row) of the file it came from.
    """

    id: str
    text: str | None
    label: str | None
    timestamp: str
    source: str
    line: int


class Reject(NamedTuple):
    """A line that was not accepted. `reason` is one word; `raw` is the beginning of the line, undecodable bytes escaped."""

    source: str
    line: int
    reason: str
    raw: str


class BadLineError(ValueError):
    """A line that cannot become a row. The message is the reason word."""


@dataclass(frozen=True)
class Shape:
    """How a foreign record becomes a Row: our column names to theirs, and the day of rows that carry none."""

    columns: Mapping[str, str]
    epoch: date


def row_id(source: str, line: int) -> str:
    """16 hex digits that stay the same as long as the line stays where it is."""
    return hashlib.sha256(f"{source}:{line}".encode()).hexdigest()[:16]


def raw_text(line: bytes) -> str:
    """The beginning of a line as text that can be written as UTF-8."""
    return line[: 4 * RAW_CHARS].decode("utf-8", "backslashreplace")[:RAW_CHARS]
