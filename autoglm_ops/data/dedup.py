"""Exact deduplication, before the split: the same text must never sit on both sides of it (threats F06)."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from autoglm_ops.data.rows import Row
from autoglm_ops.data.tables import Sample


def normalise(text: str) -> str:
    """What makes two texts the same: NFKC, and runs of white space as one space. Lengths were capped before (NFKC grows up to 18×)."""
    return " ".join(unicodedata.normalize("NFKC", text).split())


class Distinct(NamedTuple):
    """A text that occurs once: its normalised form, and the first and the last row that has it."""

    key: str
    first: Sample
    last: Sample


def dedup(rows: Iterable[Row]) -> tuple[list[Distinct], dict[str, int]]:
    """Each text once, in the order of first occurrence (by day, source, line), and how many rows were dropped by reason word.

    A text that came with two labels is dropped whole ("label-conflict"): which one is right is not known.
    """
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.timestamp, row.source, row.line)):
        found.setdefault(normalise(row.text or ""), []).append(row)
    dropped: Counter[str] = Counter()
    kept: list[Distinct] = []
    for key, same in found.items():
        if len({row.label for row in same}) > 1:
            dropped["label-conflict"] += len(same)
        else:
            dropped["duplicate"] += len(same) - 1
            kept.append(Distinct(key, _sample(same[0]), _sample(same[-1])))
    return kept, {word: count for word, count in dropped.items() if count}


def _sample(row: Row) -> Sample:
    return Sample(row.id, row.text or "", row.label or "", row.timestamp, row.source, 1.0)
