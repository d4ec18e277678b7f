"""An append-only file of records (threats F23): `length, crc32`, two big-endian 32-bit numbers, and that many bytes each.

A record torn by a crash can only be the last: it is dropped, since its writer never said it was safe. A bad record with others after it
is damage, and refused.
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from autoglm_ops.errors import Tampered

_HEADER = struct.Struct(">II")
OVERHEAD = _HEADER.size
"""Bytes of a record beside its own."""


def framed(payload: bytes) -> bytes:
    """A record's bytes."""
    return _HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def read_frames(path: Path, start: int = 0) -> tuple[list[bytes], int]:
    """The whole records from byte `start` on, and the offset behind the last of them. Raises Tampered with the offset of a damaged one."""
    if not path.exists():
        return [], 0
    with path.open("rb") as file:
        file.seek(start)
        data = file.read()
    found: list[bytes] = []
    offset = 0
    while len(data) - offset >= _HEADER.size:
        length, checksum = _HEADER.unpack_from(data, offset)
        end = offset + _HEADER.size + length
        payload = data[offset + _HEADER.size : end]
        if len(payload) < length or (zlib.crc32(payload) != checksum and end == len(data)):
            break
        if zlib.crc32(payload) != checksum:
            raise Tampered(f"{path} is damaged at byte {start + offset}: the checksum differs; move it away, then try again")
        found.append(payload)
        offset = end
    return found, start + offset
