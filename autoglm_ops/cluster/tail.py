"""Following a file that somebody else writes."""

from __future__ import annotations

from pathlib import Path

from autoglm_ops.cluster.process import MAX_LINE, Sink


class Tail:
    """A growing file, line by line. One that is not there yet is empty."""

    def __init__(self, path: Path) -> None:
        self.path, self.seen = path, False
        self._at, self._rest = 0, b""

    def forward(self, sink: Sink) -> None:
        """What was added since the last time, in whole lines."""
        try:
            with self.path.open("rb") as file:
                self.seen = True
                file.seek(self._at)
                while piece := file.read(MAX_LINE):
                    self._at += len(piece)
                    self._give(piece, sink)
        except FileNotFoundError:
            return

    def finish(self, sink: Sink) -> None:
        """All that is left, its last line whole or not."""
        self.forward(sink)
        if self._rest:
            sink("stdout", self._rest)
            self._rest = b""

    def _give(self, piece: bytes, sink: Sink) -> None:
        *lines, self._rest = (self._rest + piece).split(b"\n")
        for line in lines:
            sink("stdout", line + b"\n")
        if len(self._rest) >= MAX_LINE:
            sink("stdout", self._rest)
            self._rest = b""
