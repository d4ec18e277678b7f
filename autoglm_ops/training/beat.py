"""The heartbeat of a rank: where it is and when it last moved, in a small file that whoever watches can read without torch.

Ages are differences of the monotonic clock (threats F26), which one boot of one machine shares between its processes; a beat of another
boot says nothing and counts as old.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

Phase = Literal["joining", "building", "training", "saving", "done"]
FOLDER = "beats"
LEAST = 0.2
"""Seconds between two writes, unless something is new."""


@dataclass(frozen=True)
class Beat:
    """`monotonic` is when the rank last moved, in seconds; `boot` which boot's clock that is; `resumed` the step its attempt began at."""

    rank: int
    attempt: int
    phase: Phase
    step: int
    monotonic: float
    boot: str
    pid: int
    resumed: int = 0

    def age(self, now: float) -> float:
        """Seconds since it, infinite when it is of another boot."""
        return now - self.monotonic if self.boot == boot() else float("inf")


class Heart:
    """Writes `folder/beats/rank-<n>.json`, each time whole. A disk that takes no beat does not stop a rank."""

    def __init__(self, folder: Path, rank: int, attempt: int = 1) -> None:
        self._path = folder / FOLDER / f"rank-{rank}.json"
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._rank, self._attempt = rank, attempt
        self._phase: Phase = "joining"
        self._step, self._resumed, self._last = 0, 0, 0.0

    def enter(self, phase: Phase, resumed: int | None = None) -> None:
        """Say a new phase at once; with `resumed`, the step it begins at."""
        self._phase = phase
        if resumed is not None:
            self._step = self._resumed = resumed
        self._write(time.monotonic())

    def at(self, step: int) -> None:
        """A step is done."""
        self._step = step
        self.beat()

    def beat(self) -> None:
        """Something moved: a micro-batch, a batch of an evaluation."""
        now = time.monotonic()
        if now - self._last >= LEAST:
            self._write(now)

    def _write(self, now: float) -> None:
        self._last = now
        beat = Beat(self._rank, self._attempt, self._phase, self._step, now, boot(), os.getpid(), self._resumed)
        staged = self._path.with_suffix(".new")
        try:
            staged.write_text(json.dumps(asdict(beat)) + "\n", encoding="ascii")
            os.replace(staged, self._path)
        except OSError:
            staged.unlink(missing_ok=True)


def read(folder: Path, attempt: int | None = None) -> list[Beat]:
    """The beats below `folder`, by rank; of one `attempt` when it is given. What cannot be read is no beat."""
    return sorted(_read(folder.rglob(f"{FOLDER}/rank-*.json"), attempt), key=lambda beat: beat.rank)


def _read(paths: Iterable[Path], attempt: int | None) -> Iterable[Beat]:
    for path in paths:
        try:
            beat = Beat(**json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError):
            continue
        if attempt in (None, beat.attempt):
            yield beat


@cache
def boot() -> str:
    """Which boot of which machine this is; empty where the kernel does not say."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""
