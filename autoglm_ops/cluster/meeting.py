"""Where the nodes of one attempt meet: rank 0 publishes its address in the store, the others wait for it there.

No service, no shared disk and no name server is needed, on Kubernetes as on Slurm. What the nodes continue from is agreed there too: a
checkpoint that one of them found later than another would set them apart. It is said before it is laid down, so that all nodes fetch it
at once, however long that takes; whether it could be had is said by rank 0 afterwards.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import time

from autoglm_ops.cluster import exchange
from autoglm_ops.contracts.cluster import Store
from autoglm_ops.contracts.record import Record
from autoglm_ops.errors import TryAgain

WAIT_SECONDS = 600.0
POLL_SECONDS = 0.5


class Meeting(Record):
    """Rank 0's address, and what all nodes continue from."""

    address: str
    port: int
    kept: exchange.Kept | None = None


def rank() -> int:
    """The node's rank: ours, or Slurm's own; 0 when nothing is said."""
    return int(os.environ.get("AUTOGLM_NODE_RANK") or os.environ.get("SLURM_NODEID") or 0)


def arrange(store: Store, key: str, attempt: int, kept: exchange.Kept | None) -> Meeting:
    """Rank 0: take a free port, and say so. Raises TryAgain when the store is away."""
    address = os.environ.get("AUTOGLM_NODE_ADDRESS") or _address()
    with socket.socket() as free:
        free.bind((address, 0))
        meeting = Meeting(address=address, port=free.getsockname()[1], kept=kept)
    return exchange.post(store, _place(key, attempt), meeting)


def _address() -> str:
    """Where other nodes reach this one: what its name means, unless that is itself alone (Debian's /etc/hosts says 127.0.1.1)."""
    try:
        named = socket.gethostbyname(socket.gethostname())
    except OSError:
        named = "127.0.0.1"
    if not ipaddress.ip_address(named).is_loopback:
        return named
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            asked.connect(
                ("198.51.100.1", 9)
            )  # an address of nobody's (RFC 5737): the way out is looked up, and nothing is sent
        except OSError:  # no way out: all nodes are this machine
            return named
        return str(asked.getsockname()[0])


def find(store: Store, key: str, attempt: int, seconds: float = WAIT_SECONDS) -> Meeting:
    """The other ranks: wait until rank 0 has said where. Raises TryAgain when it does not."""
    said = _awaited(store, _place(key, attempt), seconds)
    if said is None:
        raise TryAgain(f"rank 0 of job {key[:16]} did not say where to meet within {seconds:g} s; the job is tried again")
    return said


def settle(store: Store, key: str, attempt: int, said: Meeting, *, had: bool) -> None:
    """Rank 0: say whether what is kept could be had: if not, all nodes start over. Raises TryAgain when the store is away."""
    exchange.post(store, _place(key, attempt, "settled"), said if had else said.model_copy(update={"kept": None}))


def settled(store: Store, key: str, attempt: int, seconds: float) -> bool:
    """The other ranks: wait until rank 0 has said whether it could have what is kept. Raises TryAgain when it does not."""
    said = _awaited(store, _place(key, attempt, "settled"), seconds)
    if said is None:
        raise TryAgain(f"rank 0 of job {key[:16]} did not fetch what was kept within {seconds:g} s; the job is tried again")
    return said.kept is not None


def _awaited(store: Store, name: str, seconds: float) -> Meeting | None:
    end = time.monotonic() + seconds
    while (found := exchange.posted(store, name, Meeting)) is None:
        if time.monotonic() > end:
            return None
        time.sleep(POLL_SECONDS)
    return found


def _place(key: str, attempt: int, what: str = "meeting") -> str:
    """One for each time that Slurm starts the attempt: a requeued job has other nodes, and more to continue from."""
    restarts = int(os.environ.get("SLURM_RESTART_COUNT") or 0)
    return f"{what}/{exchange.slot(exchange.slot(key, attempt), restarts)}"


def surroundings(meeting: Meeting, nodes: int) -> dict[str, str]:
    """What the training's ranks look for."""
    return {
        "AUTOGLM_NODES": str(nodes),
        "AUTOGLM_NODE_RANK": str(rank()),
        "MASTER_ADDR": meeting.address,
        "MASTER_PORT": str(meeting.port),
    }
