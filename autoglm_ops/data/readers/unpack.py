"""gzip and Zstandard as bounded streams: what comes out is capped by ratio and by size, and an early end is said (threat F05)."""

from __future__ import annotations

import zlib
from collections.abc import Iterator

import zstandard

from autoglm_ops.data.readers.blocks import Stream, TruncatedError
from autoglm_ops.data.readers.limits import MIB, Limits
from autoglm_ops.errors import BadData

_PIECE = 256 << 10
_WINDOW = 1 << 27  # bytes; the largest that `zstd --long` makes without being told to
_ZSTD, _SKIPPABLE = 0xFD2FB528, 0x184D2A50
_DAMAGED = "is not whole {what}: {error}; fetch or pack it again"


class Unpacked:
    """The unpacked bytes of a stream. A read gives at most what was asked for, and no more is held than one packed block's worth.

    Raises BadData "decompression-bomb" over the limits, BadData "corrupt" for bytes that are not of the packing, and
    TruncatedError, after the last good byte, when the packed stream ends early.
    """

    def __init__(self, packed: Stream, packing: str, name: str, limits: Limits) -> None:
        self._packed = _Packed(packed)
        self._pieces = {".gz": _gunzip, ".zst": _unzstd}[packing](self._packed)
        self._name, self._packing, self._limits = name, packing, limits
        self._held = memoryview(b"")
        self._out = 0
        self._cut = False

    def read(self, size: int, /) -> bytes:
        """`size` bytes unless the end comes first: small blocks would cost the formats more than the unpacking does."""
        pieces: list[bytes] = []
        while size and not self._cut:
            try:
                piece = self._some(size)
            except TruncatedError:
                self._cut = True
                break
            if not piece:
                break
            pieces.append(piece)
            size -= len(piece)
        if self._cut and not pieces:
            raise TruncatedError
        return b"".join(pieces)

    def _some(self, size: int) -> bytes:
        try:
            while not self._held:
                self._held = memoryview(next(self._pieces, b""))
                if not self._held:
                    return b""
                self._count(len(self._held))
        except (zlib.error, zstandard.ZstdError, ValueError) as error:
            raise BadData(f"{self._name} {_DAMAGED.format(what=self._packing, error=error)}", ("corrupt",)) from error
        taken, self._held = bytes(self._held[:size]), self._held[size:]
        return taken

    def _count(self, more: int) -> None:
        self._out += more
        packed, limits = self._packed.taken, self._limits
        if self._out > limits.unpacked or (self._out > MIB and self._out > limits.ratio * packed):
            raise BadData(
                f"{self._name} unpacks to {self._out} bytes and more from {packed}; at most {limits.unpacked} bytes and "
                f"{limits.ratio} times the packed size are read: a decompression bomb? if not, pack it in smaller files",
                ("decompression-bomb",),
            )


class _Packed:
    """The packed side: exact reads, and how much was taken."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._held = b""
        self.taken = 0

    def some(self) -> bytes:
        """What is next; empty at the end."""
        piece, self._held = self._held or self._stream.read(_PIECE), b""
        self.taken += len(piece)
        return piece

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes. Raises TruncatedError when there are fewer."""
        while len(self._held) < size:
            piece = self._stream.read(max(size - len(self._held), _PIECE))
            if not piece:
                raise TruncatedError
            self._held += piece
        taken, self._held = self._held[:size], self._held[size:]
        self.taken += size
        return taken

    def ended(self) -> bool:
        self._held = self._held or self._stream.read(_PIECE)
        return not self._held

    def put_back(self, rest: bytes) -> None:
        self._held = rest + self._held
        self.taken -= len(rest)


def _gunzip(packed: _Packed) -> Iterator[bytes]:
    """Every member of a gzip file (RFC 1952); zeros after the last one are padding."""
    while True:
        member = zlib.decompressobj(wbits=31)
        rest = packed.some()
        while not member.eof:
            if not rest and not (rest := packed.some()):
                raise TruncatedError
            if piece := member.decompress(rest, _PIECE):
                yield piece
            rest = member.unconsumed_tail
        packed.put_back(member.unused_data.lstrip(b"\0"))
        while not packed.ended():
            start = packed.some().lstrip(b"\0")
            if start:
                packed.put_back(start)
                break
        else:
            return


def _unzstd(packed: _Packed) -> Iterator[bytes]:
    """Every frame of a Zstandard file (RFC 8878), a block at a time: a block makes at most 128 KiB, and only we know where it ends.

    The library's own stream says neither that a frame was cut nor how much a call may make.
    """
    while True:
        head = packed.exactly(4)
        magic = int.from_bytes(head, "little")
        if magic & 0xFFFFFFF0 == _SKIPPABLE:
            for _ in range(0, size := int.from_bytes(packed.exactly(4), "little"), _PIECE):
                packed.exactly(min(size, _PIECE))
                size -= _PIECE
        elif magic == _ZSTD:
            yield from _frame(packed, head)
        else:
            raise ValueError(f"no frame begins with {head.hex()}")
        if packed.ended():
            return


def _frame(packed: _Packed, head: bytes) -> Iterator[bytes]:
    flags = packed.exactly(1)
    single, checksum = flags[0] >> 5 & 1, flags[0] >> 2 & 1
    rest = (not single) + (0, 1, 2, 4)[flags[0] & 3] + ((1 if single else 0), 2, 4, 8)[flags[0] >> 6]
    frame = zstandard.ZstdDecompressor(max_window_size=_WINDOW).decompressobj()
    frame.decompress(head + flags + packed.exactly(rest))  # gives nothing yet
    last = 0
    while not last:
        header = packed.exactly(3)
        word = int.from_bytes(header, "little")
        last, size = word & 1, 1 if word >> 1 & 3 == 1 else word >> 3
        if piece := frame.decompress(header + packed.exactly(size)):
            yield piece
    if checksum and (piece := frame.decompress(packed.exactly(4))):
        yield piece
    if not frame.eof:
        raise ValueError("a frame does not end where its last block does")
