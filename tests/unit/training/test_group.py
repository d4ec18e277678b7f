"""Ranks live and die together, and what is blamed is the cause. The bodies are light: no torch, no DeepSpeed."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from autoglm_ops.errors import AutoGLMError, BadData, Refused, TryAgain
from autoglm_ops.training import group, warm
from autoglm_ops.training.job import Failure

Body = Callable[[int], None]


def watch(folder: Path, body: Body, count: int = 3) -> Failure | None:
    with group._ranks(range(count), lambda rank: group._guarded(rank, folder, lambda: body(rank))) as children:
        return group._watch(children, folder)


def hang() -> None:
    time.sleep(60)


def test_a_group_that_ends_well_says_nothing(tmp_path: Path) -> None:
    assert watch(tmp_path, lambda rank: None) is None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_rank_never_hangs_the_others(tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "GRACE", 0.2)
    started = time.monotonic()
    failure = watch(tmp_path, lambda rank: os.kill(os.getpid(), number) if rank == 1 else hang())
    assert time.monotonic() - started < 5
    assert failure is not None
    assert (failure.rank, failure.kind, failure.exit) == (1, "killed", 75)
    assert number.name in failure.message


def test_the_cause_is_blamed_and_not_its_echo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "GRACE", 1.0)

    def body(rank: int) -> None:
        if rank == 2:
            time.sleep(0.2)
            raise Refused("diverged: the loss is nan")
        raise RuntimeError("Connection closed by peer")

    failure = watch(tmp_path, body)
    assert failure is not None
    assert (failure.rank, failure.kind, failure.message) == (2, "Refused", "diverged: the loss is nan")


def test_a_reason_that_is_no_text_is_a_note_all_the_same(tmp_path: Path) -> None:
    """The note had failed, and the rank had gone on as the group: it killed its neighbours and cleared their folder."""

    def body(rank: int) -> None:
        raise Refused("cannot read a\udcff") if rank == 1 else RuntimeError("Connection closed by peer")

    failure = watch(tmp_path, body, count=2)
    assert failure is not None and failure.message == r"cannot read a\udcff"


def test_a_rank_never_runs_what_its_group_would_clean_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group, "GRACE", 0.5)

    def torn(rank: int) -> int:
        if rank == 0:
            hang()
        raise ValueError("beyond any guard")

    with group._ranks(range(2), torn) as children:
        failure = group._watch(children, tmp_path)
    assert failure is not None and (failure.rank, failure.kind) == (1, "exit"), (
        "it had killed its neighbour, who was then blamed"
    )


@pytest.mark.parametrize("lost", ["stdout", "stderr"])
def test_a_rank_whose_output_is_lost_has_not_ended_well(
    tmp_path: Path, lost: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """It had ended with 0, whatever became of what it said."""

    def body(rank: int) -> int:
        full = Path("/dev/full").open("w")  # noqa: SIM115 - open to the end of the rank
        monkeypatch.setattr(sys, lost, full)
        full.write("the last line")
        return 0

    with group._ranks(range(1), body) as children:
        failure = group._watch(children, tmp_path)
    assert failure is not None and (failure.kind, failure.exit) == ("exit", 1)
    assert lost == "stderr" or "No space left" in capfd.readouterr().err


@pytest.mark.parametrize(("number", "kind"), [(errno.ENOSPC, "OSError"), (errno.EROFS, "OSError"), (errno.EACCES, "exit")])
def test_only_a_full_or_a_read_only_disk_is_called_one(
    tmp_path: Path, number: int, kind: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def write(self: Failure, path: Path) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Failure, "write", write)

    def body(rank: int) -> None:
        raise Refused("diverged: the loss is nan")

    failure = watch(tmp_path, body, count=1)
    assert failure is not None and failure.kind == kind
    assert ("No space left" in failure.message) is (kind == "OSError")
    said = capfd.readouterr().err
    assert "diverged: the loss is nan" in said and os.strerror(number) in said, "the reason is in the log, wherever the note is"


def test_no_rank_outlives_a_killed_group(tmp_path: Path) -> None:
    code = (
        "import os, sys, time; from pathlib import Path; from autoglm_ops.training import group\n"
        "with group._ranks(range(2), lambda rank: time.sleep(60) or 0) as children:\n"
        "    print(*children, flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    ranks = [int(word) for word in process.stdout.readline().split()]
    time.sleep(0.3)  # each rank asks the kernel for this before its work
    process.kill()
    process.wait()
    deadline = time.monotonic() + 5
    while any(_alive(pid) for pid in ranks):
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize(
    ("failure", "kind", "said"),
    [
        (Failure(rank=1, kind="BadData", exit=3, message="empty"), BadData, "empty"),
        (Failure(rank=1, kind="Diverged", exit=3, message="nan"), Refused, "nan"),
        (Failure(rank=1, kind="killed", exit=75, message="gone"), TryAgain, "gone"),
        (Failure(rank=1, kind="ValueError", exit=1, message="x"), AutoGLMError, "rank 1 failed: ValueError: x"),
    ],
)
def test_the_parent_raises_what_the_rank_said(failure: Failure, kind: type, said: str) -> None:
    error = warm.error_of(failure)
    assert type(error) is kind
    assert str(error) == said
