"""Faults of the folder store: a kill at every step, a full disk, racing writers, changed bytes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from autoglm_ops.contracts.record import digest_path
from autoglm_ops.errors import Tampered
from autoglm_ops.store.local import LocalStore

LIMITED = """
import resource, sys
from pathlib import Path
from autoglm_ops.errors import TryAgain
from autoglm_ops.store.local import LocalStore
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    LocalStore(Path(sys.argv[1])).put(Path(sys.argv[2]))
except TryAgain as error:
    print(error)
    sys.exit(error.exit_code)
"""


def run(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *map(str, arguments)], capture_output=True, text=True, check=False)


def crash(action: Callable[[], object], root: Path, stop: int) -> int:
    """Fork, do `action`, and SIGKILL at the `stop`-th touch of a file below `root`. Returns the touches of a whole run (stop=0)."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        count = 0

        def hook(event: str, arguments: tuple) -> None:
            nonlocal count
            if event in {"open", "os.rename", "os.remove", "os.truncate", "os.chmod", "os.mkdir"} and str(root) in str(
                arguments[0]
            ):
                count += 1
                if count == stop:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        action()
        os.write(writer, bytes([count]))
        os._exit(0)
    os.close(writer)
    status = os.waitpid(pid, 0)[1]
    assert os.WIFSIGNALED(status) == bool(stop)
    return next(iter(os.read(reader, 1)), 0)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "tokenizer").mkdir(parents=True)
    (folder / "weights").write_bytes(os.urandom(20_000))
    (folder / "tokenizer" / "vocabulary.json").write_text('{"a": 1}')
    return folder


def test_a_kill_at_any_step_leaves_all_or_nothing(tmp_path: Path, model: Path) -> None:
    digest = digest_path(model)
    whole = LocalStore(tmp_path / "whole")
    steps = crash(lambda: whole.put(model), whole.root, 0)
    assert steps >= 6
    for stop in range(1, steps + 1):
        store = LocalStore(tmp_path / f"s{stop}")
        crash(lambda store=store: store.put(model), store.root, stop)
        if early := store.has(digest):
            store.get(digest, tmp_path / f"early{stop}")
        assert store.put(model) == digest
        assert digest_path(store.get(digest, tmp_path / f"got{stop}")) == digest
        if not early:
            assert not list(store.root.glob(".*.staged")), "the next put sweeps what the killed one left"


def test_a_full_disk_says_try_again_and_leaves_nothing(tmp_path: Path, model: Path) -> None:
    done = run(LIMITED, tmp_path / "s", model)
    assert done.returncode == 75 and "free space" in done.stdout
    assert not [path for path in (tmp_path / "s").iterdir() if path.name != ".lock"]
    assert LocalStore(tmp_path / "s").put(model) == digest_path(model)


def test_racing_puts_store_it_once(tmp_path: Path, model: Path) -> None:
    code = "import sys; from pathlib import Path; from autoglm_ops.store.local import LocalStore; print(LocalStore(Path(sys.argv[1])).put(Path(sys.argv[2])))"
    racers = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "s"), str(model)], stdout=subprocess.PIPE, text=True)
        for _ in range(6)
    ]
    assert {racer.communicate()[0].strip() for racer in racers} == {digest_path(model)}
    assert sorted(path.suffix for path in (tmp_path / "s").iterdir() if path.name != ".lock") == ["", ".files"]


@pytest.mark.parametrize("fault", ["changed", "missing", "link", "listing", "no listing"])
def test_changed_bytes_are_refused_by_name(tmp_path: Path, model: Path, fault: str) -> None:
    store = LocalStore(tmp_path / "s")
    digest = store.put(model)
    stored, listing = store.root / digest / "weights", store.root / f"{digest}.files"
    if fault == "changed":
        stored.chmod(0o644)
        data = bytearray(stored.read_bytes())
        data[7] ^= 1
        stored.write_bytes(data)
    elif fault == "missing":
        stored.unlink()
    elif fault == "link":
        stored.unlink()
        stored.symlink_to(model / "weights")
    elif fault == "listing":
        listing.write_text(listing.read_text().replace("weights", "wights"))
    else:
        listing.unlink()
    with pytest.raises(Tampered, match=r"weights|\.files"):
        store.get(digest, tmp_path / "got")
    assert not (tmp_path / "got").exists() and not list(tmp_path.glob(".got*"))
