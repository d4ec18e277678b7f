"""What is tracked of one run, whoever keeps it."""

from __future__ import annotations

from typing import NamedTuple

from autoglm_ops.contracts.record import Record


class TrackedRun(Record):
    """One run, whole: written once, found again by `key`, and the same however often it is written.

    started: seconds since the epoch, the time of every point, so that a replay adds no second one. series: metric -> (step, value)
    pairs. artifacts: path in the run -> file or folder of this machine. dataset: the dataset version's digest.
    """

    key: str
    started: float
    params: dict[str, str]
    metrics: dict[str, float]
    series: dict[str, tuple[tuple[int, float], ...]]
    tags: dict[str, str]
    artifacts: dict[str, str]
    dataset: str


class Tracked(NamedTuple):
    """Where a run was written: ids of the tracking server, and the root of its artefacts."""

    run_id: str
    experiment_id: str
    artifacts: str
