"""What a reader may spend on what it cannot trust, and what it says of a line it turned away."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

from autoglm_ops.data.rows import raw_text

MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """Bounds of one shard's reading. The defaults are those of threats.md F04, F05 and F09."""

    line: int = MIB
    """Bytes of one line, one CSV record, one Parquet value, or one text file that is one document."""
    unpacked: int = 64 << 30
    """Bytes one packed file may unpack to, and one file fetched over HTTP may have."""
    ratio: int = 100
    """Unpacked bytes per packed byte, once the first MiB is out."""
    hosts: tuple[str, ...] = ()
    """The hosts that may be fetched from, by exact name. None are by default."""
    seconds: float = 3600.0
    """How long one file may take over HTTP."""
    requests: int = 100_000
    """Requests one shard may send to S3, retries included."""
    document: Literal["line", "file"] = "line"
    """What one document of plain text is."""
    allow_private: bool = False
    """Let HTTP reach this machine and private networks. For tests alone: it switches the address check off (F09)."""


class Rejected(NamedTuple):
    """A line that became no document. `reason` is one word that can be counted, `raw` the line's beginning as text.

    `line` and `offset` are those of the document it would have been (see `blocks`); `offset` is None in a Parquet file.
    """

    source: str
    line: int
    offset: int | None
    reason: str
    raw: str

    @classmethod
    def of(cls, source: str, line: int, offset: int, reason: str, raw: bytes) -> Rejected:
        return cls(source, line, offset, reason, raw_text(raw))
