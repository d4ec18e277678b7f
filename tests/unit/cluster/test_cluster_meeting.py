"""Where the nodes of an attempt meet: one place for each time that the attempt is started."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from autoglm_ops.cluster import exchange, meeting
from autoglm_ops.errors import TryAgain
from autoglm_ops.store import open_store

KEY = "a" * 64


def test_all_nodes_find_what_rank_0_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUTOGLM_NODE_ADDRESS", "127.0.0.1")
    store = open_store(None, tmp_path)
    kept = exchange.Kept(path="scratch/step-1", digest="b" * 64)
    said = meeting.arrange(store, KEY, 1, kept)
    assert meeting.find(store, KEY, 1) == said and said.kept == kept
    with pytest.raises(TryAgain, match="did not say where to meet"):
        meeting.find(store, KEY, 2, seconds=0.1)


def test_a_requeued_job_meets_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slurm starts the same attempt again on other nodes, with more to continue from: the old address is nobody's."""
    monkeypatch.setenv("AUTOGLM_NODE_ADDRESS", "127.0.0.1")
    store = open_store(None, tmp_path)
    first = meeting.arrange(store, KEY, 1, None)
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    with pytest.raises(TryAgain):
        meeting.find(store, KEY, 1, seconds=0.1)
    again = meeting.arrange(store, KEY, 1, exchange.Kept(path="scratch/step-1", digest="b" * 64))
    assert meeting.find(store, KEY, 1) == again != first


@pytest.mark.parametrize("named", ["127.0.1.1", None])
def test_no_node_is_sent_to_itself(named: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a machine's own name means the machine alone, as Debian has it, the others had looked for rank 0 on themselves."""

    def resolve(name: str) -> str:
        if named is None:
            raise socket.gaierror(-2, "Name or service not known")
        return named

    monkeypatch.setattr(socket, "gethostbyname", resolve)
    monkeypatch.setattr(socket, "socket", Routed)
    assert meeting.arrange(open_store(None, tmp_path), KEY, 1, None).address == "10.1.2.3"
    monkeypatch.setattr(Routed, "way", None)
    assert meeting.arrange(open_store(None, tmp_path), KEY, 2, None).address == (named or "127.0.0.1")


class Routed(socket.socket):
    """On a machine whose way out is an address that this one lacks."""

    way: str | None = "10.1.2.3"

    def connect(self, address: object) -> None:
        if self.way is None:
            raise OSError(101, "Network is unreachable")

    def bind(self, address: object) -> None:
        super().bind(("127.0.0.1", 0))

    def getsockname(self) -> tuple[str | None, int]:
        return (self.way, super().getsockname()[1])
