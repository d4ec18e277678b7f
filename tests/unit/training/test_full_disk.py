"""A disk that is really full: a small tmpfs where this may be mounted, and a limit on the size of a file, which anybody may set."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
import torch

from autoglm_ops.training import checkpoint
from autoglm_ops.training.callbacks.checkpoints import Checkpoints
from autoglm_ops.training.callbacks.pace import Pace
from autoglm_ops.training.progress import Progress, Weights

SIZE = 512 << 10
Scarce = Callable[[], AbstractContextManager[None]]


class Engine:
    """Of 64 KB, or of `rows` KB."""

    rank, ranks, accumulation, resumable = 0, 1, 1, True

    def __init__(self, step: int, rows: int = 64) -> None:
        self.at, self.rows = step, rows

    def live(self) -> Weights:
        return {"master@0:layer": torch.full((self.rows, 256), float(self.at))}


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "small"
    place.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.getuid() != 0:
        pytest.skip("mounting a small tmpfs takes root")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def found(root: Path) -> int:
    kept = checkpoint.newest(root, "run")
    assert kept is not None
    assert set(kept[2]["master@0:layer"].unique().tolist()) == {float(kept[0].step)}
    return kept[0].step


def the_run_goes_on(root: Path, scarce: Scarce, caplog: pytest.LogCaptureFixture) -> None:
    """Two checkpoints while there is room, none while there is not, and one again."""
    engine = Engine(1)
    callback = Checkpoints(root, "run", engine, pace=Pace(every=1))  # type: ignore[arg-type]

    def step(number: int) -> None:
        engine.at = number
        callback.on_step(Progress(step=number, steps=99))
        callback.on_end(Progress())

    step(1)
    with scarce():
        before = sorted(path.name for path in root.iterdir())
        step(2)
        assert callback.failed == 1 and "the run goes on" in caplog.text
        assert sorted(path.name for path in root.iterdir()) == before
        assert found(root) == 1
    step(3)
    assert (callback.failed, found(root)) == (1, 3)


def test_on_a_full_disk_the_run_goes_on_and_the_checkpoint_before_stays(tmpfs: Path, caplog: pytest.LogCaptureFixture) -> None:
    @contextmanager
    def full() -> Iterator[None]:
        ballast = tmpfs / "ballast"
        with ballast.open("wb") as file, pytest.raises(OSError, match="No space left"):
            while True:
                os.write(file.fileno(), bytes(4096))
        yield
        ballast.unlink()

    the_run_goes_on(tmpfs / "checkpoints", full, caplog)
    assert "No space left on device" in caplog.text


def test_a_file_that_may_not_grow_is_said_and_the_checkpoint_before_stays(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @contextmanager
    def limited() -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (16 << 10, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    the_run_goes_on(tmp_path / "checkpoints", limited, caplog)
    assert "File too large" in caplog.text


def test_a_model_too_large_for_the_disk_says_so_and_leaves_nothing(tmpfs: Path) -> None:
    root = tmpfs / "checkpoints"
    checkpoint.save(root, "run", Engine(1), Progress(step=1))
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(root, "run", Engine(2, rows=4096), Progress(step=2))
    assert found(root) == 1 and [path.name for path in root.iterdir()] == ["step-000000001"]
