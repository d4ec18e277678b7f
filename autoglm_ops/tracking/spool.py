"""A local append-only file of runs that could not be tracked yet (threats F23); see `frames` for how it is written and read."""

from __future__ import annotations

import os
from pathlib import Path

from autoglm_ops.tracking.frames import framed, read_frames
from autoglm_ops.tracking.run import TrackedRun


class Spool:
    """Not locked: the tracker holds its lock around it."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, run: TrackedRun) -> None:
        """Add `run` unless it is already there. Returns when it is on the disk."""
        runs, whole = self._read()
        if run in runs:
            return
        payload = run.to_json().encode()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("ab") as file:
            file.truncate(whole)
            try:
                file.write(framed(payload))
                file.flush()
                os.fsync(file.fileno())
            except OSError:
                os.truncate(self.path, whole)
                raise

    def runs(self) -> list[TrackedRun]:
        """Every whole record, oldest first. Raises Tampered with the offset of a damaged one."""
        return self._read()[0]

    def clear(self) -> None:
        """All of it was delivered."""
        self.path.unlink(missing_ok=True)

    def _read(self) -> tuple[list[TrackedRun], int]:
        """The whole records, and the offset behind the last of them."""
        payloads, whole = read_frames(self.path)
        return [TrackedRun.model_validate_json(payload) for payload in payloads], whole
