"""The outside world as one run sees it: written once by `open run` or `autoglm snapshot`, read by stages."""

from __future__ import annotations

from autoglm_ops.contracts.record import Record


class AsOf(Record):
    """`inputs/as_of.json`: the last day of data this run may see, ISO date, clipped to what exists."""

    day: str


class StudyHistory(Record):
    """`inputs/history.json`: digests of earlier tuning reports that may warm-start the next study."""

    studies: tuple[str, ...] = ()


class RunInfo(Record):
    """What `open run` answers: where the run lives and whether there is anything to do."""

    run: str
    workspace: str
    decision: str
    reason: str
    as_of: str
    content_key: str
