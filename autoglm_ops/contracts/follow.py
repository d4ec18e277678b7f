"""The record of one commit of `autoglm data follow`: what was taken from a source log, and where to go on."""

from __future__ import annotations

from pydantic import Field

from autoglm_ops.contracts.record import Record


class LogCommit(Record):
    """`_commit.json` of one committed batch. seen = kept + the sum of `quarantined`, in events; `documents` is what the kept ones made.

    `after` is the offset behind the batch's last event: the newest commit is the only place where the follower's position stands.
    """

    number: int = Field(ge=1)
    source: str
    after: str
    seen: int = Field(ge=1)
    kept: int = Field(ge=0)
    documents: int = Field(ge=0)
    quarantined: dict[str, int] = {}
    handlers: str
    """Fingerprint of the handlers' file that converted the batch."""
    files: dict[str, str] = {}
    """Name -> sha256 of what lies beside this record."""
    previous: str | None = None
    """Fingerprint of the commit before; None in the first one."""
