"""The outside world as one run sees it: written once by `open run` or `autoglm snapshot`, read by stages."""

from __future__ import annotations

from typing import Literal

from autoglm_ops.contracts.record import Record


class AsOf(Record):
    """`inputs/as_of.json`: the last day of data this run may see, ISO date, clipped to what exists."""

    day: str


class Folders(Record):
    """`inputs/folders.json`: digests of the folders that settings name outside the workspace, null for built-ins. No path of the machine."""

    tokenizer: str | None = None
    model: str | None = None


class RunInfo(Record):
    """What `open run` answers: where the run lives and whether there is anything to do.

    decision: "run" (new, or unfinished work found again), "finished" (this run key is done), or "champion" (the run could
    only rebuild the present champion). content_key: digest of data, parameters and code, the champion left out.
    """

    run: str
    workspace: str
    dag: str
    dag_run_id: str
    decision: Literal["run", "finished", "champion"]
    reason: str
    as_of: str
    content_key: str
    opened: float
