"""Row rules: which rows are turned away, each with one reason word. Pure.

A bad row costs the row, not the run; a run stops when more rows than the budget are bad (threats F01).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from typing import Any, NamedTuple

Row = Mapping[str, Any]
_NAN = re.compile(r"(?i)^[-+]?nan$|^<na>$|^[-+]?inf(inity)?$")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


@dataclass(frozen=True)
class Limits:
    """What a row must keep: text length in characters, both ends included, and the allowed labels (None: any)."""

    min_chars: int
    max_chars: int
    labels: frozenset[str] | None


class Quarantined(NamedTuple):
    """A row that was turned away: where it came from, one reason word, and what it held."""

    source: str
    line: int
    reason: str
    row: Any


def fault(row: Row, limits: Limits) -> str | None:
    """The reason word of the first rule that `row` breaks, or None."""
    return _text_fault(row["text"], limits) or _label_fault(row["label"], limits) or _day_fault(row["timestamp"])


def sift(rows: Iterable[Row], limits: Limits) -> tuple[list[Row], list[Quarantined]]:
    """Rows that keep every rule, and those that do not; together they are all rows. The second row with an id is "duplicate-id"."""
    kept: list[Row] = []
    bad: list[Quarantined] = []
    seen: set[str] = set()
    for row in rows:
        reason = fault(row, limits) or ("duplicate-id" if row["id"] in seen else None)
        if reason:
            bad.append(Quarantined(row["source"], row["line"], reason, dict(row)))
        else:
            seen.add(row["id"])
            kept.append(row)
    return kept, bad


def budget(rows: int, share: float, least: int) -> int:
    """How many of `rows` may be quarantined: the larger of `share` of them and `least`."""
    return max(int(share * rows), least)


def _text_fault(text: str | None, limits: Limits) -> str | None:
    if text is None:
        return "null-text"
    if not text.strip():
        return "empty-text"
    if len(text) < limits.min_chars:
        return "text-too-short"
    return "text-too-long" if len(text) > limits.max_chars else None


def _label_fault(label: str | None, limits: Limits) -> str | None:
    if label is None:
        return "null-label"
    if not label:
        return "empty-label"
    if limits.labels is not None and label in limits.labels:
        return None
    if _NAN.match(label):
        return "nan-label"
    return None if limits.labels is None else "unknown-label"


@lru_cache(maxsize=4096)
def _day_fault(day: str | None) -> str | None:
    if day is None or not _DAY.fullmatch(day):
        return "bad-timestamp"
    try:
        date.fromisoformat(day)
    except ValueError:
        return "bad-timestamp"
    return None
