"""A local append-only file of runs that could not be tracked yet (threats F23).

One record is `length, crc32` (two big-endian 32-bit numbers) and that many bytes of JSON, fsynced before it counts. A record torn
by a crash can only be the last: it is dropped, since its writer never said it was safe. A bad record with others after it is
damage, and refused.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from autoglm_ops.errors import Tampered
from autoglm_ops.tracking.run import TrackedRun

_HEADER = struct.Struct(">II")


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
                file.write(_HEADER.pack(len(payload), zlib.crc32(payload)) + payload)
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
        data = self.path.read_bytes() if self.path.exists() else b""
        runs: list[TrackedRun] = []
        offset = 0
        while len(data) - offset >= _HEADER.size:
            length, checksum = _HEADER.unpack_from(data, offset)
            payload = data[offset + _HEADER.size : offset + _HEADER.size + length]
            end = offset + _HEADER.size + length
            if len(payload) < length or (zlib.crc32(payload) != checksum and end == len(data)):
                break
            if zlib.crc32(payload) != checksum:
                raise Tampered(
                    f"{self.path} is damaged at byte {offset}: the checksum differs; move it away, then run `track` again"
                )
            runs.append(TrackedRun.model_validate_json(payload))
            offset = end
        return runs, offset
