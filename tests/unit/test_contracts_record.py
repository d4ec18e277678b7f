"""Records and digests: canonical bytes, closed shapes, atomic files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autoglm_ops.contracts.inputs import AsOf
from autoglm_ops.contracts.record import Completion, digest_of, digest_path, digest_tree, write_text
from autoglm_ops.errors import Tampered

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,  # the deep ones are nearly all drawn again, which took longer than everything else here
)


@given(st.dictionaries(st.text(), VALUES, max_size=5))
def test_a_digest_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert digest_of(value) == digest_of(dict(reversed(list(value.items()))))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_has_no_canonical_form_has_no_digest(value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest_of({"x": value})


def test_a_folder_digest_sees_names_and_bytes(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b/x").write_text("1")
    (tmp_path / "a").write_text("2")
    before = digest_path(tmp_path)
    assert list(digest_tree(tmp_path)) == ["a", "b/x"]
    (tmp_path / "a").rename(tmp_path / "c")
    assert digest_path(tmp_path) != before


def test_every_cut_of_a_record_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "as_of.json"
    record = AsOf(day="2026-01-01")
    record.write(path)
    whole = path.read_bytes()
    assert AsOf.read(path) == record
    for cut in range(len(whole) - 2):
        path.write_bytes(whole[:cut])
        with pytest.raises(Tampered, match=r"as_of\.json is not a AsOf"):
            AsOf.read(path)


def test_unknown_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    path.write_text(json.dumps({"day": "2026-01-01", "hour": 3}))
    with pytest.raises(Tampered, match="hour"):
        AsOf.read(path)


def test_a_failed_write_leaves_the_old_file_and_no_litter(tmp_path: Path) -> None:
    """A full disk, as RLIMIT_FSIZE in a child: the old record stays, whole, and the staged neighbour is gone."""
    path = tmp_path / "r.json"
    AsOf(day="2026-01-01").write(path)
    code = (
        "import resource, signal, sys; from pathlib import Path; from autoglm_ops.contracts.record import write_text\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))\n"
        "write_text(Path(sys.argv[1]), 'x' * 5000)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode != 0 and "File too large" in done.stderr
    assert AsOf.read(path).day == "2026-01-01"
    assert os.listdir(tmp_path) == ["r.json"]


def test_write_text_replaces_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "f.txt"
    write_text(path, "one")
    write_text(path, "two")
    assert path.read_text() == "two" and os.listdir(path.parent) == ["f.txt"]


def test_a_completion_round_trips(tmp_path: Path) -> None:
    record = Completion(stage="train", run="r", attempt=1, started=1.5, seconds=2.0, cached=False, exit=0, measured={"x": 1.0})
    record.write(tmp_path / "c.json")
    assert Completion.read(tmp_path / "c.json") == record
