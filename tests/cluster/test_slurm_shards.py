"""The shards of `dataset_build` as Slurm jobs, two at once: the same dataset."""

from __future__ import annotations

from pathlib import Path

import pytest
from on_slurm import command, needs_slurm
from shard_build import ROWS, build, checkout, corpus

pytestmark = [needs_slurm, pytest.mark.slow]  # each of its four jobs compiles the readers: a minute of a core


def test_shards_on_slurm_make_the_same_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    raw = corpus(tmp_path / "raw")
    here = build(checkout(tmp_path / "here", {}, {}), raw, monkeypatch)
    place = {"backend": "slurm", "stages": ["dataset"], "deadline_seconds": 280, "slurm": {"logs": str(tmp_path / "logs")}}
    away = build(checkout(tmp_path / "away", {}, place), raw, monkeypatch, width=2)
    assert capfd.readouterr().err.count("attempt 1: succeeded") == 4, "two shards are read and written"
    assert away.digest == here.digest
    assert (away.seen, away.quarantined, away.dropped["duplicate"]) == (2 * ROWS + 51, {"bad-json": 1}, 50)
    assert command("squeue", "--noheader") == "", "no job is left"
