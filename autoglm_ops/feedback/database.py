"""The SQLite file behind `intake`: one writing thread per process, any number of readers in any process (WAL).

The writer commits whatever has gathered in one transaction, so that callers share the wait for the disk; a caller's future
ends once its rows are on it (synchronous = FULL: neither a killed process nor a power cut takes them back).
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from autoglm_ops.contracts.record import locked
from autoglm_ops.errors import Tampered, TryAgain, UsageError

FORMAT = 2
BUSY_SECONDS = 10.0
GROUP = 256
"""Most calls committed in one transaction."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS predictions (
  id TEXT PRIMARY KEY, name TEXT NOT NULL, version INTEGER NOT NULL, digest TEXT NOT NULL, text TEXT NOT NULL,
  label TEXT NOT NULL, score REAL NOT NULL, at REAL NOT NULL, event_time TEXT NOT NULL, day TEXT NOT NULL);
CREATE INDEX IF NOT EXISTS predictions_day ON predictions (day);
CREATE TABLE IF NOT EXISTS feedback (
  id TEXT NOT NULL REFERENCES predictions (id), source TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL,
  at REAL NOT NULL, day TEXT NOT NULL, PRIMARY KEY (id, source, kind)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS feedback_source_day ON feedback (source, day);
CREATE TABLE IF NOT EXISTS served (
  day TEXT NOT NULL, version INTEGER NOT NULL, ok INTEGER NOT NULL, bound REAL NOT NULL, requests INTEGER NOT NULL,
  texts INTEGER NOT NULL, seconds REAL NOT NULL, PRIMARY KEY (day, version, ok, bound)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS units (id TEXT PRIMARY KEY, unit TEXT NOT NULL) WITHOUT ROWID;
"""

Write = Callable[[sqlite3.Connection], Any]


class GroupWriter:
    """Runs writes in order on one thread, in shared transactions. The file and its folder are made by the first write."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: deque[tuple[Write, Future[Any]]] = deque()
        self._thread = ThreadPoolExecutor(1, "requests-db")
        self._connection: sqlite3.Connection | None = None

    def submit(self, write: Write) -> Future[Any]:
        """What `write(connection)` returns, once it is on disk. A UsageError it raises is its own; it must not have written before."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # it will be written: a caller who stops waiting cannot take it back
        self._pending.append((write, future))
        self._thread.submit(self._flush)
        return future

    def close(self) -> None:
        """Wait for what is being written, and let go of the file."""
        self._thread.shutdown(wait=True)
        self._drop()

    def _flush(self) -> None:
        """Commit what has gathered. The flushes that were submitted for the same gathering then find nothing to do."""
        group = [self._pending.popleft() for _ in range(min(GROUP, len(self._pending)))]
        if not group:
            return
        try:
            with explained(self.path):
                outcomes = self._commit([write for write, _ in group])
        except BaseException as error:
            self._drop()  # the next group starts on a fresh connection
            for _, future in group:
                future.set_exception(error)
            raise
        for (_, future), outcome in zip(group, outcomes, strict=True):
            if isinstance(outcome, UsageError):
                future.set_exception(outcome)
            else:
                future.set_result(outcome)

    def _commit(self, writes: list[Write]) -> list[Any]:
        if self._connection is None:
            self._connection = _open(self.path)
        self._connection.execute("BEGIN IMMEDIATE")
        outcomes = [_attempt(write, self._connection) for write in writes]
        self._connection.execute("COMMIT")
        return outcomes

    def _drop(self) -> None:
        """Close the connection; what it had not committed is undone."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


@contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """A connection of its own for one reader. A file that is not there yet reads as empty, and is not made."""
    with explained(path):
        connection = _open(path) if path.exists() else _nothing()
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def explained(path: Path) -> Iterator[None]:
    """SQLite's errors in the house's terms: TryAgain for a lock or a full disk, Tampered for a damaged file."""
    try:
        yield
    except (sqlite3.OperationalError, OSError) as error:
        raise TryAgain(f"{path} cannot be used now: {error}; check the disk and who holds the file, then try again") from error
    except sqlite3.DatabaseError as error:
        raise Tampered(f"{path} is damaged: {error}; move it aside, and the server starts a new one") from error


def _attempt(write: Write, connection: sqlite3.Connection) -> Any:
    """What `write` returned, or the refusal it raised: one caller's mistake must not undo what others wrote in the same group."""
    try:
        return write(connection)
    except UsageError as error:
        return error


def _open(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        if _format(connection) < FORMAT:
            _lay_out(connection, path)
        if (found := _format(connection)) != FORMAT:
            raise UsageError(
                f"{path} has format {found}, this version reads {FORMAT}; use the version of autoglm that wrote it"
            )
        connection.execute("PRAGMA synchronous = FULL")
    except BaseException:
        connection.close()
        raise
    return connection


def _lay_out(connection: sqlite3.Connection, path: Path) -> None:
    """Make a new file ours, or give an older one (format 1: without `served` and `units`) what it lacks, one process at a time: SQLite does not
    wait, but fails, when two turn one file to WAL at once."""
    with locked(path.with_name(f".{path.name}.lock")):
        if _format(connection) < FORMAT:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.executescript(_SCHEMA + f"PRAGMA user_version = {FORMAT};")


def _format(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


def _nothing() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    connection.executescript(_SCHEMA)
    return connection
