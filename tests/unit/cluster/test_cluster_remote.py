"""What the nodes of an attempt continue from: the same, however long it takes to fetch, or nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from autoglm_ops.cluster import exchange, keeping, meeting, remote
from autoglm_ops.contracts.cluster import Store, Work
from autoglm_ops.errors import Tampered, TryAgain
from autoglm_ops.store import open_store

WORK = Work(name="x", command=("true",), nodes=2, deadline_seconds=20)
STEP = "scratch/step-1"
Nodes = Callable[[Callable[[int], None]], list[Future[dict[str, str]]]]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "store"), tmp_path)


@pytest.fixture
def nodes(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Nodes:
    """Two nodes meet over a kept checkpoint; `before(rank)` comes before each one lays it down. They wait 0.3 s for an address."""
    monkeypatch.setenv("AUTOGLM_NODE_ADDRESS", "127.0.0.1")
    monkeypatch.setattr(meeting, "POLL_SECONDS", 0.01)
    monkeypatch.setattr(remote, "find", partial(meeting.find, seconds=0.3))
    me, lay_down = threading.local(), keeping.lay_down
    monkeypatch.setattr(remote, "meeting_rank", lambda: me.rank)
    (tmp_path / "step").mkdir()
    (tmp_path / "step" / "weights").write_text("1")
    key = exchange.describe(store, WORK)
    exchange.keep(store, key, STEP, tmp_path / "step")

    def node(rank: int) -> dict[str, str]:
        me.rank = rank
        return remote._meet(store, WORK, key, 2, tmp_path / f"node-{rank}")

    def run(before: Callable[[int], None]) -> list[Future[dict[str, str]]]:
        def laid(store: Store, kept: exchange.Kept, root: Path) -> None:
            before(me.rank)
            lay_down(store, kept, root)

        monkeypatch.setattr(keeping, "lay_down", laid)
        with ThreadPoolExecutor(2) as pool:
            return [pool.submit(node, rank) for rank in range(2)]

    return run


def has(tmp_path: Path) -> list[bool]:
    return [(tmp_path / f"node-{rank}" / STEP / "weights").exists() for rank in range(2)]


@pytest.mark.parametrize("slow", [0, 1])
def test_a_checkpoint_may_take_longer_to_fetch_than_an_address_is_waited_for(slow: int, nodes: Nodes, tmp_path: Path) -> None:
    """Rank 0 had fetched it first and said then where to meet: one of over ten minutes ended every attempt to continue from it."""
    first, second = (one.result() for one in nodes(lambda rank: time.sleep(1 if rank == slow else 0)))
    assert first["MASTER_PORT"] == second["MASTER_PORT"] and has(tmp_path) == [True, True]


@pytest.mark.parametrize("lacking", [{0}, {0, 1}])
def test_what_rank_0_cannot_have_no_node_continues_from(lacking: set[int], nodes: Nodes, tmp_path: Path) -> None:
    def damaged(rank: int) -> None:
        if rank in lacking:
            raise Tampered("weights has another sha256")

    assert all(one.result()["MASTER_PORT"] for one in nodes(damaged))
    assert has(tmp_path) == [False, False]


def test_a_node_that_alone_cannot_have_it_ends_the_attempt(nodes: Nodes, tmp_path: Path) -> None:
    def away(rank: int) -> None:
        if rank == 1:
            raise TryAgain("the store does not answer")

    first, second = nodes(away)
    assert first.result() and has(tmp_path) == [True, False]
    with pytest.raises(TryAgain, match="the store does not answer"):
        second.result()
