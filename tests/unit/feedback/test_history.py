"""The patch history: append-only, torn at every byte, undone, expired."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from autoglm_ops.contracts.feedback import SearchSpacePatch
from autoglm_ops.errors import Tampered, TryAgain, UsageError
from autoglm_ops.feedback.history import History
from autoglm_ops.feedback.levers import apply

Make = Callable[..., SearchSpacePatch]
DAY = date(2026, 1, 6)


def test_what_was_appended_is_read_in_order(tmp_path: Path, make_patch: Make) -> None:
    history = History(tmp_path / "feedback" / "patches.jsonl")
    assert history.read() == ()
    first, second = make_patch(), make_patch(key="model.dropout", old=0.1, new=0.15, reason="更多")
    history.append([first])
    history.append([second])
    assert history.read() == (first, second)


def test_a_line_torn_at_any_byte_is_ignored_and_healed(
    tmp_path: Path, make_patch: Make, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "patches.jsonl"
    history = History(path)
    history.append([make_patch()])
    kept = path.stat().st_size
    history.append([make_patch(reason="second")])
    whole = path.read_bytes()
    for cut in range(kept + 1, len(whole), 7):
        path.write_bytes(whole[:cut])
        with caplog.at_level(logging.WARNING):
            assert history.read() == (make_patch(),)
        assert "torn line" in caplog.text
    history.append([make_patch(reason="third")])
    assert [patch.reason for patch in history.read()] == ["why", "third"]


def test_a_broken_line_in_the_middle_is_refused_and_left_alone(tmp_path: Path, make_patch: Make) -> None:
    path = tmp_path / "patches.jsonl"
    history = History(path)
    history.append([make_patch()])
    path.write_bytes(b'{"key": 1}\n' + path.read_bytes())
    before = path.read_bytes()
    for act in (history.read, lambda: history.append([make_patch()])):
        with pytest.raises(Tampered, match=r"patches\.jsonl:1 is not a patch"):
            act()
    assert path.read_bytes() == before


def test_patches_end_with_their_expiry(tmp_path: Path, make_patch: Make) -> None:
    history = History(tmp_path / "patches.jsonl")
    history.append([make_patch()])
    assert len(history.active(date(2026, 1, 12)).patches) == 1
    assert history.active(date(2026, 1, 13)).patches == ()


def test_patches_built_on_one_another_live_as_long_as_the_newest(tmp_path: Path, make_patch: Make) -> None:
    history = History(tmp_path / "patches.jsonl")
    chain = [make_patch(), make_patch(old=3.6, new=4.2, created="2026-01-10", expires="2026-01-17")]
    history.append(chain)
    assert history.active(date(2026, 1, 15)).patches == tuple(chain)
    assert apply({"train.epochs": 3.0}, history.active(date(2026, 1, 15))).levers == {"train.epochs": 4.2}
    fresh = make_patch(created="2026-01-20", expires="2026-01-27")
    history.append([fresh])
    assert history.active(date(2026, 1, 21)).patches == (fresh,)


def test_undo_restores_and_is_itself_recorded(tmp_path: Path, make_patch: Make) -> None:
    history = History(tmp_path / "patches.jsonl")
    base = {"train.epochs": 3.0, "model.dropout": 0.1}
    history.append([make_patch(), make_patch(old=3.6, new=4.2), make_patch(key="model.dropout", old=0.1, new=0.12)])
    history.undo(2, DAY)
    assert apply(base, history.active(DAY), DAY).levers == {"train.epochs": 3.6, "model.dropout": 0.1}
    history.undo(1, DAY)
    assert apply(base, history.active(DAY), DAY).levers == base
    assert len(history.read()) == 6
    with pytest.raises(UsageError, match="undo 1: 0 patches are in force"):
        history.undo(1, DAY)


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path: Path, make_patch: Make) -> None:
    path = tmp_path / "patches.jsonl"
    History(path).append([make_patch()])
    before = path.read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path; from autoglm_ops.feedback.history import History\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"history = History(Path({str(path)!r})); patch = history.read()[0]\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({len(before) + 40}, {len(before) + 40}))\n"
        "try: history.append([patch, patch])\n"
        "except Exception as error: print(type(error).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == TryAgain.__name__
    assert path.read_bytes() == before
