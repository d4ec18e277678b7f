"""What every source log gives: entries in order, each with the offset behind it. A kind of log is a file and a line here."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

from autoglm_ops.catalog import Catalog
from autoglm_ops.errors import UsageError

LOGS = Catalog(
    "source log",
    {
        "file": "autoglm_ops.data.follow.files:folder_log",
        "s3": "autoglm_ops.data.follow.files:bucket_log",
        "redis": "autoglm_ops.data.follow.stream:RedisLog",
        "rediss": "autoglm_ops.data.follow.stream:RedisLog",
    },
    group="autoglm_ops.source_logs",
)
MAX_EVENT = 1 << 20


class Entry(NamedTuple):
    """One entry of a log. `raw` is its JSON; of one over MAX_EVENT bytes only the beginning, with `fits` false.

    `place` says where it lies, and stays what it is; `after` is what `read` wants to go on behind it.
    """

    place: str
    after: str
    raw: bytes
    fits: bool = True


class SourceLog(Protocol):
    """An append-only log. `name` stands in records: never a secret, nor a path of this machine. `pause`: seconds between two looks."""

    name: str
    pause: float

    def read(self, after: str, most: int) -> Iterator[Entry]:
        """At most `most` entries behind `after` ("" is the beginning), in order, those that are there now; it does not wait.

        Raises Tampered when the log is not the one `after` came from, or entries behind it went before they were read; TryAgain
        when its server is away.
        """
        ...


def open_log(location: str) -> SourceLog:
    """A folder's path, `s3://bucket/prefix` or `redis://host:port/stream`. Raises UsageError for a scheme nobody serves."""
    scheme, separator, _ = location.partition("://")
    try:
        made: SourceLog = LOGS.get(scheme.lower() if separator else "file")(location)
    except ModuleNotFoundError as error:
        raise UsageError(
            f"{scheme}:// needs {error.name}, which is not installed: pip install 'autoglm-ops[queue,store]'"
        ) from error
    return made
