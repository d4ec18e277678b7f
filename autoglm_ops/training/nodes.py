"""Which of several machines this is, from the environment that `cluster.remote` sets: the ranks that live here, and where all of them meet.

Placement changes nothing of what comes out: two ranks on one machine and one rank on each of two sum the same numbers.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from autoglm_ops.contracts.training import RecoveryRules
from autoglm_ops.errors import UsageError


@dataclass(frozen=True)
class Here:
    """`index` of `nodes` machines; `meeting` is rank 0's address, None on one machine."""

    nodes: int
    index: int
    meeting: str | None

    @property
    def first(self) -> bool:
        """Whether rank 0, which writes what comes out, lives here."""
        return self.index == 0

    def ranks(self, total: int) -> range:
        """The ranks of this machine. Raises UsageError when they cannot be shared out evenly."""
        if total % self.nodes:
            raise UsageError(
                f"{total} ranks cannot be shared out over {self.nodes} nodes; set plan.ranks to a multiple of cluster.resources.nodes"
            )
        each = total // self.nodes
        return range(self.index * each, (self.index + 1) * each)

    def rules(self, own: RecoveryRules) -> RecoveryRules:
        """Restarts of the group here: none where other machines' ranks would have to meet it anew. Then the whole job is tried again."""
        return own if self.nodes == 1 else own.model_copy(update={"restarts": 0})

    def address(self, file: Path) -> str:
        """How torch's ranks find each other: a file on one machine, a port of rank 0's machine on several."""
        return file.as_uri() if self.meeting is None else self.meeting


def here() -> Here:
    """This machine among those of the job; the only one when nothing is said."""
    nodes = int(os.environ.get("AUTOGLM_NODES", "1"))
    if nodes == 1:
        return Here(1, 0, None)
    return Here(nodes, int(os.environ["AUTOGLM_NODE_RANK"]), f"tcp://{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}")
