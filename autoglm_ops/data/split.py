"""The split: a text's side follows from its content alone, so it is the same on every day and for every model.

A held-out text can therefore be in no training set, whenever and however often it occurs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from autoglm_ops.contracts.data import SPLITS, DatasetVersion, Split
from autoglm_ops.data.dedup import Distinct, normalise
from autoglm_ops.data.tables import Sample
from autoglm_ops.errors import BadData, SettingsError

SALT = "autoglm-split-1:"  # changing it moves held-out texts into training, and no champion could be judged fairly again


@dataclass(frozen=True)
class Shares:
    """Shares of distinct texts, the days the gate judges on, and the days trained on (0 is all)."""

    holdout: float
    validation: float
    gate_days: int
    window_days: int

    def __post_init__(self) -> None:
        if self.holdout + self.validation >= 1:
            raise SettingsError(
                f"prepare.holdout = {self.holdout} and prepare.validation = {self.validation} leave nothing to train on; "
                "their sum must be below 1"
            )


def place(key: str) -> float:
    """Where in [0, 1) a normalised text falls, evenly and for ever."""
    return int.from_bytes(hashlib.sha256((SALT + key).encode()).digest()[:8], "big") / 2**64


def side(key: str, shares: Shares) -> Split:
    """The split that a normalised text belongs to, whether it occurs today or not."""
    where = place(key)
    if where < shares.holdout:
        return "gate"
    return "validation" if where < shares.holdout + shares.validation else "train"


@dataclass(frozen=True)
class Splits:
    """The samples per split, how many rows were dropped by reason word, and the days: all of them and the gate's."""

    samples: dict[Split, list[Sample]]
    dropped: dict[str, int]
    days: list[str]
    gate_days: list[str]


def split(texts: Sequence[Distinct], shares: Shares) -> Splits:
    """Every text to its side. Held-out texts of days before the gate's are used by nobody, rows before the window are not trained on.

    A text that came on several days counts on the first of them for training, and for the gate on the last: the gate asks how a
    model does now, and no model has seen a held-out text on any day.
    """
    days = sorted({row.day for text in texts for row in (text.first, text.last)})
    gate_days = days[-shares.gate_days :]
    first = _window_start(days, shares.window_days)
    samples: dict[Split, list[Sample]] = {name: [] for name in SPLITS}
    dropped: Counter[str] = Counter()
    for key, earliest, latest in texts:
        home = side(key, shares)
        sample = latest if home == "gate" else earliest
        if home == "gate" and sample.day not in gate_days:
            dropped["held-out-earlier"] += 1
        elif home != "gate" and sample.day < first:
            dropped["outside-window"] += 1
        else:
            samples[home].append(sample)
    return Splits(samples, dict(dropped), days, gate_days)


def check_leakage(samples: Mapping[Split, Sequence[Sample]]) -> None:
    """Raises BadData when a normalised text is in two splits. It holds by construction; this holds the construction."""
    home: dict[str, str] = {}
    for name, rows in samples.items():
        for row in rows:
            other = home.setdefault(normalise(row.text), name)
            if other != name:
                raise BadData(f"row {row.id}: its text is in {other} and in {name}; a split must never leak", ("leakage",))


def check_filled(samples: Mapping[Split, Sequence[Sample]]) -> None:
    """Raises BadData when a split is empty, or training has one class only."""
    for name, rows in samples.items():
        if not rows:
            raise BadData(f"the split {name} has no rows; give more data, or change prepare.* in params.yaml", ("empty-split",))
    labels = {row.label for row in samples["train"]}
    if len(labels) < 2:
        raise BadData(f"the training rows have one class only ({', '.join(labels)}); a classifier needs two", ("one-class",))


def describe(splits: Splits, repeated: Mapping[str, int], digest: str) -> DatasetVersion:
    """The record of what was made. `repeated`: rows that dedup dropped. `digest` is over the split files."""
    labels = {row.label for rows in splits.samples.values() for row in rows}
    return DatasetVersion(
        digest=digest,
        rows={name: len(rows) for name, rows in splits.samples.items()},
        labels=tuple(sorted(labels)),
        dropped=dict(sorted({**repeated, **splits.dropped}.items())),
        first_day=splits.days[0],
        last_day=splits.days[-1],
        gate_days=tuple(splits.gate_days),
        label_share={name: _label_share(rows) for name, rows in splits.samples.items()},
    )


def _window_start(days: Sequence[str], window: int) -> str:
    if not window or not days:
        return ""
    return (date.fromisoformat(days[-1]) - timedelta(days=window - 1)).isoformat()


def _label_share(rows: Sequence[Sample]) -> dict[str, float]:
    counts = Counter(row.label for row in rows)
    return {label: counts[label] / len(rows) for label in sorted(counts)}
