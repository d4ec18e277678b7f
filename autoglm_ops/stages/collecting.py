"""The artefact store cleared of what old jobs left: `autoglm runs gc`."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from autoglm_ops.cluster import collect
from autoglm_ops.contracts.cluster import Shelf
from autoglm_ops.errors import UsageError
from autoglm_ops.settings import Settings
from autoglm_ops.stages import releasing
from autoglm_ops.store import open_store

DAY = 86400.0


@dataclass(frozen=True)
class Collected:
    """What went, or would go."""

    jobs: int
    artefacts: int
    notes: int
    freed: int


def run(settings: Settings, home: Path, days: int, *, dry: bool = False) -> Collected:
    """Remove what jobs that nobody touched for `days` left in the store of these settings, but for what the registry names.

    Raises UsageError (less than a day; a store that cannot be looked through), TryAgain (store or registry away: nothing is removed).
    """
    if days < 1:
        raise UsageError(f"--days {days}: at least 1, since a job that runs now is not told from one that ended today")
    store = open_store(settings.store.uri, home)
    if not isinstance(store, Shelf):
        raise UsageError(f"the store {settings.store.uri} cannot be looked through; remove what is old with its own means")
    before = time.time() - days * DAY
    doomed = collect.find(store, before, releasing.open_registry(settings, home).digests())
    freed = 0 if dry else collect.clear(store, doomed, before)
    return Collected(len(doomed.jobs), len(doomed.artefacts), len(doomed.notes), freed)
