"""Where the nodes of an attempt meet: one place for each time that the attempt is started."""

from __future__ import annotations

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
