"""A checkpoint that cannot be kept: at every call that may fail the one before it stays, the run goes on, and it is said."""

from __future__ import annotations

import errno
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from autoglm_ops.training import checkpoint, image
from autoglm_ops.training.callbacks.checkpoints import Checkpoints
from autoglm_ops.training.progress import Progress, Weights


class Engine:
    """What a checkpoint asks of an engine: weights that follow from the step."""

    rank, ranks, accumulation, resumable = 0, 1, 1, True

    def __init__(self, step: int) -> None:
        self.at = step

    def live(self) -> Weights:
        return {"master@0:layer": torch.full((64, 64), float(self.at)), "exp_avg@0:layer": torch.full((64, 64), self.at / 2)}


def saved(root: Path, step: int) -> Path:
    return checkpoint.save(root, "run", Engine(step), Progress(step=step, best={"layer": torch.ones(3)}))  # type: ignore[arg-type]


def found(root: Path) -> int:
    """The step of the newest that verifies, its bytes being that step's."""
    kept = checkpoint.newest(root, "run")
    assert kept is not None
    progress, _, state = kept
    meant = Engine(progress.step).live()
    assert state.keys() == meant.keys() and all(torch.equal(state[name], meant[name]) for name in meant)
    return progress.step


def failing(monkeypatch: pytest.MonkeyPatch, where: Any, name: str, at: int, how: Callable[..., Any]) -> list[int]:
    """The `at`-th call of `where.name` from now on goes to `how`, which gets the real one first. Returns the calls so far."""
    real, calls = getattr(where, name), []

    def called(*arguments: Any, **named: Any) -> Any:
        calls.append(len(calls))
        return how(real, *arguments, **named) if len(calls) == at + 1 else real(*arguments, **named)

    monkeypatch.setattr(where, name, called)
    return calls


def no_space(*_: Any, **__: Any) -> Any:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def short(real: Callable[..., Any], handle: int, content: memoryview) -> None:
    """A disk that says it took all, and did not."""
    real(handle, content[:-1])


def flipped(real: Callable[..., Any], handle: int, content: memoryview) -> None:
    real(handle, memoryview(bytes([*content[:-5], content[-5] ^ 1, *content[-4:]])))


@pytest.mark.parametrize(
    ("where", "name", "how"),
    [
        (image, "put", no_space), (image, "put", short), (image, "put", flipped), (Path, "mkdir", no_space),
        (os, "fsync", no_space), (os, "replace", no_space), (os, "open", no_space),
    ],
    ids=lambda value: getattr(value, "__name__", str(value)),
)  # fmt: skip
def test_at_every_call_that_fails_the_one_before_stays_and_nothing_is_left(
    tmp_path: Path, where: Any, name: str, how: Callable[..., Any]
) -> None:
    at, failed = 0, 0
    while True:
        root = tmp_path / str(at)
        saved(root, 1)
        with pytest.MonkeyPatch.context() as patch:
            calls = failing(patch, where, name, at, how)
            try:
                saved(root, 2)
                said = True
            except OSError:
                said, failed = False, failed + 1
        reached = len(calls) > at
        assert found(root) == (2 if said else 1), f"{name} {at}"
        assert sorted(path.name for path in root.iterdir()) == ["step-000000001", *["step-000000002"] * said]
        shutil.rmtree(root)
        if not reached:
            break
        at += 1
    assert at and failed, "the fault was never reached"


def kept(callback: Checkpoints, step: int) -> None:
    callback.on_validation(Progress(step=step, steps=9))
    callback.on_end(Progress())


def test_the_run_goes_on_without_it_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    callback = Checkpoints(tmp_path, "run", Engine(1))  # type: ignore[arg-type]
    kept(callback, 1)
    failing(monkeypatch, os, "replace", 0, no_space)
    with caplog.at_level(logging.ERROR):
        kept(callback, 2)
    assert callback.failed == 1 and "step 2 could not be kept ([Errno 28] No space left" in caplog.text
    assert found(tmp_path) == 1
    callback._engine.at = 3  # type: ignore[attr-defined]
    kept(callback, 3)
    assert (callback.failed, found(tmp_path)) == (1, 3)
