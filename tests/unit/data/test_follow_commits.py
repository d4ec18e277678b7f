"""The folder of commits: whole or not there, one follower's and one log's, and never half believed."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from follow_parts import handlers, lines, pull, records, review, write

from autoglm_ops.data.follow import Commits
from autoglm_ops.errors import Refused, Tampered, TryAgain, UsageError


@pytest.fixture
def out(tmp_path: Path) -> Path:
    """Three commits of two events."""
    write(tmp_path / "log" / "a.jsonl", map(review, range(6)))
    pull(tmp_path / "log", tmp_path / "out", handlers(tmp_path / "h.yaml"), 2)
    return tmp_path / "out"


def number(folder: Path, which: int) -> Path:
    return folder / f"{which:012d}"


def again(out: Path) -> int:
    return pull(out.parent / "log", out, handlers(out.parent / "h.yaml"), 2).seen


def test_one_follower_at_a_time(out: Path) -> None:
    with Commits(out, "log"):
        with pytest.raises(TryAgain, match="another follower writes to out"):
            again(out)
        probe = f"from pathlib import Path; from autoglm_ops.data.follow import Commits; Commits(Path({str(out)!r}), 'log').__enter__()"
        done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=False)
        assert done.returncode and "TryAgain: another follower" in done.stderr
    assert again(out) == 0


def test_a_lock_that_does_not_hold_on_a_shared_disk_still_doubles_nothing(out: Path) -> None:
    with Commits(out, "log") as mine:
        assert mine.last is not None
        (out / "_lock").unlink()  # as if the other one were on a machine that does not see it
        with Commits(out, "log") as other:
            other.publish(mine.last, {"documents.jsonl": b'{"text":"x"}\n'})
        with pytest.raises(Refused, match="commit 4 is there already"):
            mine.publish(mine.last, {"documents.jsonl": b'{"text":"y"}\n'})
    assert [item["text"] for item in lines(out)][6:] == ["x"]


def test_what_a_killed_one_left_is_swept_away(out: Path) -> None:
    left = out / ".000000000004.123.part"
    left.mkdir()
    (left / "documents.jsonl").write_text('{"text": "half')
    assert again(out) == 0
    assert not left.exists()


@pytest.mark.parametrize("name", ["documents.jsonl", "_commit.json"])
@pytest.mark.parametrize("what", ["torn", "changed", "gone", "empty"])
def test_a_newest_commit_that_is_not_whole_is_refused(out: Path, name: str, what: str) -> None:
    path = number(out, 3) / name
    text = path.read_text()
    if what == "gone":
        path.unlink()
    else:
        path.write_text(
            {"torn": text[:-9], "changed": text.replace("review", "survey").replace("seen", "sean"), "empty": ""}[what]
        )
    with pytest.raises(Tampered, match="000000000003"):
        again(out)


def test_a_commit_that_was_removed_is_taken_again_when_it_is_the_newest(out: Path) -> None:
    before = lines(out)
    for path in number(out, 3).iterdir():
        path.unlink()
    number(out, 3).rmdir()
    assert again(out) == 2
    assert lines(out) == before


def test_a_commit_that_is_missing_between_is_refused_and_old_ones_may_go(out: Path) -> None:
    number(out, 2).rename(out / "_two")
    with pytest.raises(Tampered, match="lacks commit 2"):
        again(out)
    number(out, 1).rename(out / "_one")
    assert again(out) == 0


def test_a_commit_under_another_number_is_refused(out: Path) -> None:
    number(out, 3).rename(number(out, 4))
    number(out, 2).rename(number(out, 3))
    number(out, 1).rename(out / "_one")
    with pytest.raises(Tampered, match="holds commit 3; commits cannot be renamed"):
        again(out)


def test_a_commit_that_was_exchanged_for_another_is_refused(out: Path) -> None:
    path = number(out, 2) / "_commit.json"
    path.write_text(path.read_text().replace('"kept": 2', '"kept": 1'))
    with pytest.raises(Tampered, match="000000000002 is not the commit that 000000000003 was made behind"):
        again(out)


def test_another_logs_folder_and_somebody_elses_are_refused(out: Path) -> None:
    with pytest.raises(UsageError, match="holds the commits of log, not of redis://h/s"):
        Commits(out, "redis://h/s").__enter__()
    (out / "thesis.txt").write_text("years of work")
    with pytest.raises(UsageError, match="which no follower wrote"):
        again(out)


def test_a_full_disk_leaves_nothing_and_is_worth_another_try(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(out.parent / "log" / "a.jsonl", map(review, range(6, 8)))
    before, calls = sorted(out.iterdir()), 0

    def full(handle: int) -> None:
        nonlocal calls
        calls += 1
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(TryAgain, match="No space left on device; free space"):
            again(out)
    assert calls == 1 and sorted(out.iterdir()) == before
    assert again(out) == 2
    assert [item["text"] for item in lines(out)] == [f"review {n}" for n in range(8)]


class Killed(BaseException):
    """The end of the process, as far as one test can have it: nothing below is allowed to clean up."""


STEPS = [(os, "fsync"), (Path, "mkdir"), (Path, "write_bytes"), (Path, "write_text"), (Path, "rename")]


def dying(monkeypatch: pytest.MonkeyPatch, at: int, after: bool) -> None:
    """Let the `at`-th step on the disk be the last one: before it is done, or `after`."""
    count = iter(range(1_000_000))

    def wrapped(step: Callable[..., Any]) -> Callable[..., Any]:
        def doing(*arguments: Any, **named: Any) -> Any:
            last = next(count) == at
            if last and not after:
                raise Killed
            done = step(*arguments, **named)
            if last:
                raise Killed
            return done

        return doing

    for owner, name in STEPS:
        monkeypatch.setattr(owner, name, wrapped(getattr(owner, name)))
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)


def test_killed_before_or_after_any_step_of_a_commit_nothing_is_lost_and_nothing_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # the process dies here, not the machine
    routes = handlers(tmp_path / "h.yaml")
    for at in range(100):
        died = False
        for after in (False, True):
            log, out = tmp_path / f"log-{at}-{after}", tmp_path / f"out-{at}-{after}"
            write(log / "a.jsonl", [*map(review, range(3)), b"{"])
            pull(log, out, routes, 2) if at % 2 else None  # a folder with commits, or none yet
            write(log / "a.jsonl", [review(3), b"{"])
            with pytest.MonkeyPatch.context() as patched:
                dying(patched, at, after)
                try:
                    pull(log, out, routes, 3)
                except Killed:
                    died = True
            pull(log, out, routes, 2)
            assert [item["text"] for item in lines(out)] == [f"review {n}" for n in range(4)]
            assert len(lines(out, "_quarantine.jsonl")) == 2
            assert not [path for path in out.iterdir() if path.name.startswith(".")]
        if not died:
            break
    assert at > 10  # a commit has that many steps


def test_a_write_that_the_kernel_refuses_leaves_nothing(out: Path) -> None:
    write(out.parent / "log" / "a.jsonl", [review(n, label="x" * 200) for n in range(6, 16)])
    before, limits = sorted(out.iterdir()), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400, limits[1]))
    try:
        with pytest.raises(TryAgain, match="could not be written: File too large"):
            again(out)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert sorted(out.iterdir()) == before
    assert again(out) == 10


def test_a_folder_that_cannot_be_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match="choose another output folder"):
        Commits(tmp_path / "file" / "out", "log").__enter__()


def test_the_counts_of_every_commit_add_up(out: Path) -> None:
    for record in records(out):
        assert record.seen == record.kept + sum(record.quarantined.values()) == 2
