"""The loop: read, convert, commit when the batch is full or old enough, look at the handlers' file, wait, again."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from threading import Event as Flag

from autoglm_ops.contracts.follow import LogCommit
from autoglm_ops.data.follow.commits import DOCUMENTS, QUARANTINE, Commits
from autoglm_ops.data.follow.convert import Writing, convert, quarantined
from autoglm_ops.data.follow.events import Entry, SourceLog
from autoglm_ops.data.follow.routes import LiveRoutes, Routes

logger = logging.getLogger(__name__)  # `log` is what is followed
BATCH_BYTES = 64 << 20  # what a batch may hold in memory, whatever its events' number


@dataclass(frozen=True)
class Bounds:
    """A batch is committed when it has `events` events, or its first one is `seconds` old. `once`: end where the log ends now."""

    events: int = 10_000
    seconds: float = 10.0
    once: bool = False


@dataclass(frozen=True)
class Tally:
    """What one follower committed, in events: seen = kept + the sum of `quarantined`."""

    seen: int = 0
    kept: int = 0
    documents: int = 0
    quarantined: Mapping[str, int] = field(default_factory=dict)
    commits: int = 0

    def plus(self, commit: LogCommit) -> Tally:
        return Tally(
            self.seen + commit.seen,
            self.kept + commit.kept,
            self.documents + commit.documents,
            dict(Counter(self.quarantined) + Counter(commit.quarantined)),
            self.commits + 1,
        )


Watch = Callable[[Tally], None]


def follow(
    log: SourceLog, commits: Commits, routes: LiveRoutes, columns: Mapping[str, str], bounds: Bounds, stop: Flag, watch: Watch
) -> Tally:
    """Follow `log` until `stop` is set (what was taken is committed first) or, with `bounds.once`, to its end.

    `columns` are the reader's names of our columns; `watch` hears of every commit. Raises what the log and the folder raise: what was
    not committed is then taken again by the next follower.
    """
    tally, writing = Tally(), Writing(log.name, columns)
    while not stop.is_set():
        batch = _batch(log, commits.after, routes.now(), writing, bounds, stop)
        if batch.seen:
            made = commits.publish(*batch.closed(log.name))
            tally = tally.plus(made)
            _note(made)
            watch(tally)
        elif bounds.once:
            break
        else:
            stop.wait(log.pause)
    return tally


def _note(made: LogCommit) -> None:
    refused = ", ".join(f"{word} {count}" for word, count in sorted(made.quarantined.items()))
    logger.info(
        "commit %d: %d events, %d documents, quarantined: %s", made.number, made.seen, made.documents, refused or "none"
    )


class _Batch:
    """Events of one commit, under one table of handlers."""

    def __init__(self, after: str, routes: Routes, writing: Writing) -> None:
        self.after, self._routes, self._writing = after, routes, writing
        self.seen = self.bytes = self._made = 0
        self._documents: list[bytes] = []
        self._refused: list[bytes] = []
        self._reasons: Counter[str] = Counter()

    def add(self, entry: Entry) -> None:
        found = convert(entry, self._routes, self._writing)
        if found.reason:
            self._reasons[found.reason] += 1
            self._refused.append(quarantined(entry, found, self._writing.log))
        self._documents += found.documents
        self.seen, self.after = self.seen + 1, entry.after
        self.bytes += len(entry.raw) + sum(map(len, found.documents))

    def closed(self, source: str) -> tuple[LogCommit, dict[str, bytes]]:
        record = LogCommit(
            number=1,
            source=source,
            after=self.after,
            seen=self.seen,
            kept=self.seen - self._reasons.total(),
            documents=len(self._documents),
            quarantined=dict(self._reasons),
            handlers=self._routes.fingerprint,
        )
        return record, {DOCUMENTS: b"".join(self._documents), QUARANTINE: b"".join(self._refused)}


def _batch(log: SourceLog, after: str, routes: Routes, writing: Writing, bounds: Bounds, stop: Flag) -> _Batch:
    """The events behind `after` that go into one commit; empty when there are none now."""
    batch, end = _Batch(after, routes, writing), time.monotonic() + bounds.seconds
    while not stop.is_set():
        for entry in log.read(batch.after, bounds.events - batch.seen):
            if not batch.seen:
                end = time.monotonic() + bounds.seconds
            batch.add(entry)
            if stop.is_set() or batch.bytes >= BATCH_BYTES or time.monotonic() >= end:
                return batch
        if bounds.once or not 0 < batch.seen < bounds.events or time.monotonic() >= end:
            return batch
        stop.wait(min(log.pause, bounds.seconds))
    return batch
