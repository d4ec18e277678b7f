"""A temporary folder goes with its owner, however that one ends; nobody else's does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from autoglm_ops.tempfolder import OWNER, owned

HOLD = """
import os, sys, time
from pathlib import Path
from autoglm_ops.tempfolder import owned

with owned("it-", sys.argv[1]) as folder:
    (folder / "deep").mkdir()
    (folder / "deep" / "file").write_text("x")
    if float(sys.argv[2]) and os.fork() == 0:
        time.sleep(float(sys.argv[2]))
        os._exit(0)
    print(folder, flush=True)
    time.sleep(60)
"""


def holder(place: Path, child: float = 0.0) -> tuple[subprocess.Popen[str], Path]:
    """A process that has made a folder, and a child of it that lives for so many seconds."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(place), str(child)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    return process, Path(process.stdout.readline().strip())


def test_it_goes_with_the_block(tmp_path: Path) -> None:
    with owned("it-", str(tmp_path)) as folder:
        (folder / "file").write_text("x")
    with pytest.raises(ValueError), owned("it-", str(tmp_path)) as folder:
        raise ValueError
    assert list(tmp_path.iterdir()) == []


def test_of_a_killed_owner_it_goes_with_the_next(tmp_path: Path) -> None:
    (living, kept), (killed, left) = holder(tmp_path), holder(tmp_path)
    killed.kill()
    killed.wait()
    assert left.exists()
    with owned("it-", str(tmp_path)) as folder:
        assert sorted(tmp_path.iterdir()) == sorted([kept, folder]) and (kept / "deep" / "file").exists()
    living.send_signal(signal.SIGKILL)
    living.wait()
    with owned("other-", str(tmp_path)):
        assert kept.exists(), "of another kind"


def test_what_the_owner_forked_owns_it_too(tmp_path: Path) -> None:
    """Ranks work in the folder of their group, and may outlive it for a moment."""
    killed, left = holder(tmp_path, child=60)
    child = int(Path(f"/proc/{killed.pid}/task/{killed.pid}/children").read_text().split()[0])
    killed.kill()
    killed.wait()
    with owned("it-", str(tmp_path)):
        assert left.exists()
    os.kill(child, signal.SIGKILL)
    while Path(f"/proc/{child}").exists():
        threading.Event().wait(0.01)
    with owned("it-", str(tmp_path)):
        assert not left.exists()


def test_what_nobody_owned_and_what_a_link_leads_to_stays(tmp_path: Path) -> None:
    place, elsewhere = tmp_path / "place", tmp_path / "elsewhere"
    for folder in (place / "it-of-an-older-version", elsewhere):
        folder.mkdir(parents=True)
    (elsewhere / OWNER).touch()
    (place / "it-link").symlink_to(elsewhere)
    with owned("it-", str(place)):
        pass
    assert {path.name for path in place.iterdir()} == {"it-of-an-older-version", "it-link"} and (elsewhere / OWNER).exists()


def test_many_at_once_each_have_their_own(tmp_path: Path) -> None:
    """One that is being made is not swept by another that is just made, or is made again."""
    wrong: list[Path] = []

    def work() -> None:
        for _ in range(50):
            with owned("it-", str(tmp_path)) as folder:
                (folder / "x").write_text("x")
                if not (folder / "x").exists():
                    wrong.append(folder)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == [] and list(tmp_path.iterdir()) == []
