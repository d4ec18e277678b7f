"""The spool: nothing lost, nothing twice, a torn tail dropped, damage named."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from autoglm_ops.errors import Tampered
from autoglm_ops.tracking.run import TrackedRun
from autoglm_ops.tracking.spool import Spool


def tracked(key: str, text: str = "x") -> TrackedRun:
    return TrackedRun(
        key=key,
        started=1e9,
        params={"a": text},
        metrics={"f1": 0.5},
        series={"loss": ((1, 2.0),)},
        tags={},
        artifacts={},
        dataset="",
    )


def test_append_reads_back_in_order_and_once(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "deep" / "spool.bin")
    assert spool.runs() == []
    for key in ("a", "b", "a"):
        spool.append(tracked(key))
    assert [run.key for run in spool.runs()] == ["a", "b"]
    spool.clear()
    assert spool.runs() == []


@settings(max_examples=4, deadline=None)
@given(text=st.text(max_size=20))
def test_cut_anywhere_only_whole_records_remain(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("spool") / "s"
    Spool(path).append(tracked("a", text))
    first = path.stat().st_size
    Spool(path).append(tracked("b", text))
    data = path.read_bytes()
    for cut in range(0, len(data), 13):
        path.write_bytes(data[:cut])
        whole = (cut >= first) + (cut == len(data))
        assert [run.key for run in Spool(path).runs()] == ["a", "b"][:whole]
        Spool(path).append(tracked("c"))
        assert [run.key for run in Spool(path).runs()] == [*["a", "b"][:whole], "c"]


def test_damage_in_the_middle_is_named(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    spool.append(tracked("a"))
    spool.append(tracked("b"))
    data = bytearray(spool.path.read_bytes())
    data[20] ^= 1
    spool.path.write_bytes(data)
    with pytest.raises(Tampered, match="byte 0"):
        spool.runs()


def test_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "s")
    spool.append(tracked("a"))
    code = f"""
import resource
from pathlib import Path
from autoglm_ops.tracking.run import TrackedRun
from autoglm_ops.tracking.spool import Spool
resource.setrlimit(resource.RLIMIT_FSIZE, ({spool.path.stat().st_size + 50}, -1))
spool = Spool(Path({str(spool.path)!r}))
try:
    spool.append(spool.runs()[0].model_copy(update={{"key": "b"}}))
except OSError:
    raise SystemExit(9)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert [run.key for run in spool.runs()] == ["a"]
