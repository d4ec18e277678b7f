"""Ranks shared out over machines: evenly, in order, or refused with what to set."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.errors import UsageError
from autoglm_ops.training.nodes import Here, here


@given(st.integers(1, 16), st.integers(1, 8))
def test_every_rank_lives_on_one_machine(nodes: int, each: int) -> None:
    shares = [Here(nodes, index, None).ranks(nodes * each) for index in range(nodes)]
    assert [rank for share in shares for rank in share] == list(range(nodes * each))


def test_ranks_that_cannot_be_shared_out_are_refused() -> None:
    with pytest.raises(UsageError, match=r"3 ranks cannot be shared out over 2 nodes; set plan\.ranks"):
        Here(2, 0, None).ranks(3)


def test_one_machine_meets_at_a_file_and_several_at_rank_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AUTOGLM_NODES", raising=False)
    assert here().first and here().address(Path("/x/store")) == "file:///x/store"
    for name, value in {
        "AUTOGLM_NODES": "2",
        "AUTOGLM_NODE_RANK": "1",
        "MASTER_ADDR": "10.0.0.7",
        "MASTER_PORT": "4000",
    }.items():
        monkeypatch.setenv(name, value)
    assert not here().first and here().address(Path("/x/store")) == "tcp://10.0.0.7:4000" and here().ranks(4) == range(2, 4)
