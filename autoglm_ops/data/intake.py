"""What of a dataset a run may see: nothing later than its day."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from autoglm_ops.data.fields import is_day
from autoglm_ops.data.rows import Reject, Row


@dataclass(frozen=True)
class Intake:
    """Rows, rejected lines, and how many rows are of a later day. Their sum is what was read."""

    rows: list[Row] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    later: int = 0

    def __add__(self, other: Intake) -> Intake:
        return Intake(self.rows + other.rows, self.rejects + other.rejects, self.later + other.later)


def take(items: Iterable[Row | Reject], until: str) -> Intake:
    """Rows up to and including the ISO day `until`. A row whose timestamp is no day is kept: `validate` quarantines it, counted."""
    rows: list[Row] = []
    rejects: list[Reject] = []
    later = 0
    for item in items:
        if isinstance(item, Reject):
            rejects.append(item)
        elif item.timestamp > until and is_day(item.timestamp):
            later += 1
        else:
            rows.append(item)
    return Intake(rows, rejects, later)
