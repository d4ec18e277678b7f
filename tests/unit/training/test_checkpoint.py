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

from autoglm_ops.training import checkpoint
from autoglm_ops.training.callbacks.checkpoints import Checkpoints
from autoglm_ops.training.progress import Progress, Weights


class Engine:
    """What a checkpoint asks of an engine: weights that follow from the step."""

    rank, ranks, accumulation, resumable = 0, 1, 1, True

    def __init__(self, step: int) -> None:
        self.at = step

    def weights(self) -> Weights:
        return {"layer": torch.full((64, 64), float(self.at))}

    def state(self) -> Weights:
        return {"moment": torch.full((64, 64), self.at / 2)}


def saved(root: Path, step: int) -> Path:
    return checkpoint.save(root, "run", Engine(step), Progress(step=step, best={"layer": torch.ones(3)}))  # type: ignore[arg-type]


def found(root: Path) -> int:
    """The step of the newest that verifies, its bytes being that step's."""
    kept = checkpoint.newest(root, "run")
    assert kept is not None
    progress, weights, state = kept
    assert torch.equal(weights["layer"], Engine(progress.step).weights()["layer"])
    assert torch.equal(state["moment"], Engine(progress.step).state()["moment"])
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


def short(real: Callable[..., Any], path: Path, content: bytes) -> int:
    """A disk that says it took all, and did not."""
    real(path, content[:-1])
    return len(content)


def flipped(real: Callable[..., Any], path: Path, content: bytes) -> Any:
    return real(path, content[:-5] + bytes([content[-5] ^ 1]) + content[-4:])


@pytest.mark.parametrize(
    ("where", "name", "how"),
    [
        (Path, "write_bytes", no_space), (Path, "write_bytes", short), (Path, "write_bytes", flipped), (Path, "mkdir", no_space),
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


def test_the_run_goes_on_without_it_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    callback = Checkpoints(tmp_path, "run", Engine(1))  # type: ignore[arg-type]
    callback.on_validation(Progress(step=1, steps=9))
    failing(monkeypatch, os, "replace", 0, no_space)
    with caplog.at_level(logging.ERROR):
        callback.on_validation(Progress(step=2, steps=9))
    assert callback.failed == 1 and "step 2 could not be kept ([Errno 28] No space left" in caplog.text
    assert found(tmp_path) == 1
    callback._engine.at = 3  # type: ignore[attr-defined]
    callback.on_validation(Progress(step=3, steps=9))
    assert (callback.failed, found(tmp_path)) == (1, 3)
