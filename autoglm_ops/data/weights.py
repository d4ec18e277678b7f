"""What a row weighs in training: less where its label is only implied, less the older it is. Pure.

A weak label, one that nobody gave, teaches and never judges: it stays out of validation and of the gate's rows.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path

from autoglm_ops.contracts.data import Split
from autoglm_ops.data.dedup import normalise
from autoglm_ops.data.rows import Row
from autoglm_ops.data.tables import Sample


def read(path: Path) -> dict[str, float]:
    """The weights at `path` (WEIGHTS_FILE of a stage); none when it is not there."""
    return {} if not path.exists() else dict(json.loads(path.read_text(encoding="utf-8")))


def believed(rows: Sequence[Row], weak: Mapping[str, float]) -> list[Row]:
    """`rows` without weak ones whose text somebody labelled."""
    if not weak:
        return list(rows)
    strong = {normalise(row.text or "") for row in rows if row.id not in weak}
    return [row for row in rows if row.id not in weak or normalise(row.text or "") not in strong]


def weigh(
    samples: Mapping[Split, Sequence[Sample]], weak: Mapping[str, float], half_life_days: float, today: str
) -> tuple[dict[Split, list[Sample]], dict[str, int]]:
    """The splits with their weights, and how many rows were dropped by reason word.

    half_life_days: a training row that many days older than the ISO day `today` weighs half; 0 weighs all days alike.
    """
    dropped: Counter[str] = Counter()
    found: dict[Split, list[Sample]] = {}
    for name, rows in samples.items():
        if name != "train":
            found[name] = [row for row in rows if row.id not in weak]
            dropped["weak-label"] += len(rows) - len(found[name])
        else:
            found[name] = [row._replace(weight=weak.get(row.id, 1.0) * decay(row.day, today, half_life_days)) for row in rows]
    return found, {word: count for word, count in dropped.items() if count}


def decay(day: str, today: str, half_life_days: float) -> float:
    """What a row of the ISO day `day` weighs when `today` is the newest; 1 without a half-life (0)."""
    if not half_life_days:
        return 1.0
    days = (date.fromisoformat(today) - date.fromisoformat(day)).days
    return float(0.5 ** (max(days, 0) / half_life_days))
